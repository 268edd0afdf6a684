import json

from moe_serve.quality.noninferior import TaskPlan, TaskResult, decide, harmed
from moe_serve.quality.result import NoQuality, QualityOutcome

PLAN = TaskPlan(task="sums", items=1319)


def answers(*, wrong: int, won: int = 0, items: int = 1319) -> dict[str, bool]:
    """The gold has its first 66 items wrong; an arm misses `wrong` others, and knows `won`."""
    known = {str(at): at >= 66 for at in range(items)}
    known |= {str(at): False for at in range(100, 100 + wrong)}
    return known | {str(at): True for at in range(won)}


GOLD, BAD = answers(wrong=0), answers(wrong=280)


def decided(
    canary: dict[str, bool],
    *,
    gold: dict[str, bool] = GOLD,
    known_bad: dict[str, bool] | None = BAD,
    plan: TaskPlan = PLAN,
) -> TaskResult:
    made = decide(plan, gold, canary, known_bad=known_bad)
    assert isinstance(made, TaskResult)
    return made


def test_an_arm_within_the_margin_passes_and_its_figures_are_told() -> None:
    made = decided(answers(wrong=40, won=39))
    assert made.outcome is QualityOutcome.PASSED
    assert (made.canary.lost, made.canary.won) == (40, 39)
    assert json.loads(json.dumps(made.to_json(), allow_nan=False))["power"] > 0.89


def test_an_arm_whose_interval_reaches_the_margin_fails() -> None:
    made = decided(answers(wrong=50, won=35))
    assert made.canary.arm - made.canary.baseline > -0.02
    assert made.outcome is QualityOutcome.FAILED
    assert "not shown to be within the margin" in made.reason


def test_the_loss_of_21_points_fails_after_250_items() -> None:
    first = {name: right for name, right in BAD.items() if int(name) < 250}
    assert harmed(PLAN, GOLD, first)
    assert decided(first).outcome is QualityOutcome.FAILED


def test_the_early_look_can_never_pass() -> None:
    first = {name: right for name, right in GOLD.items() if int(name) < 250}
    made = decided(first)
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "250 of 1319 planned items" in made.reason


def test_fewer_items_than_the_early_look_do_not_stop() -> None:
    few = {name: False for name in GOLD if int(name) < 249}
    assert not harmed(PLAN, GOLD, few)


def test_a_harness_that_was_not_shown_to_fail_a_bad_arm_proves_nothing() -> None:
    assert "no arm that is known to be bad" in decided(GOLD, known_bad=None).reason
    made = decided(GOLD, known_bad=answers(wrong=20))
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "was not failed" in made.reason


def test_a_saturated_task_proves_nothing() -> None:
    full = dict.fromkeys(GOLD, True)
    assert "saturated" in decided(full, gold=full).reason
    nothing = {name: int(name) < 20 for name in GOLD}
    assert "saturated" in decided(nothing, gold=nothing).reason


def test_nothing_in_common_is_no_quality() -> None:
    assert isinstance(decide(PLAN, GOLD, {}), NoQuality)
