import json
import math
import random
from collections.abc import Sequence

import pytest

from moe_serve.errors import UsageError
from moe_serve.quality.cells import CellRound, ProbeCell, ProbePath, Score
from moe_serve.quality.identical import IdenticalResult, ProbePlan, decide
from moe_serve.quality.result import NoQuality, QualityOutcome

PREFILL, DECODE = ProbeCell(ProbePath.PREFILL, 1), ProbeCell(ProbePath.DECODE, 16)
PLAN = ProbePlan(cells=(PREFILL, DECODE), rounds=4)


def part(
    cell: ProbeCell,
    *,
    number: int = 0,
    shift: float = 0.0,
    drop: float = 0.0,
    prompts: int = 256,
    lost: int = 0,
    seed: int = 1,
) -> CellRound:
    source = random.Random(f"{seed} {cell} {number}")
    scores = [
        Score(
            prompt_id=f"{number}-{at}",
            stable=0.01,
            canary=0.01 + shift + source.gauss(0, 0.02),
            top1_drop=drop + source.gauss(0, 0.02),
            tokens=32,
        )
        for at in range(prompts - lost)
    ]
    missing = tuple(f"canary: no answer to {at}" for at in range(lost))
    return CellRound(cell=cell, asked=prompts, scores=tuple(scores), missing=missing)


def rounds(count: int = 4, **kinds: float) -> list[list[CellRound]]:
    shift, drop = kinds.get("shift", 0.0), kinds.get("drop", 0.0)
    return [
        [part(PREFILL, number=at), part(DECODE, number=at, shift=shift, drop=drop)]
        for at in range(count)
    ]


def decided(found: Sequence[Sequence[CellRound]], plan: ProbePlan = PLAN) -> IdenticalResult:
    made = decide(plan, found)
    assert isinstance(made, IdenticalResult)
    return made


def test_no_excess_in_any_cell_passes() -> None:
    made = decided(rounds())
    assert made.outcome is QualityOutcome.PASSED
    assert "all 2 cells" in made.reason


def test_an_excess_in_one_cell_fails_and_names_it() -> None:
    made = decided(rounds(shift=0.02))
    assert made.outcome is QualityOutcome.FAILED
    assert "decode at concurrency 16" in made.reason and "prefill" not in made.reason


def test_an_excess_at_epsilon_is_undecided_until_all_rounds_are_done() -> None:
    assert decided(rounds(2, shift=0.005)).reason.endswith("keep probing")
    made = decided(rounds(4, shift=0.005))
    assert made.outcome is QualityOutcome.UNDECIDED
    assert made.reason.endswith("all planned rounds are done")


def test_more_rounds_narrow_the_bounds() -> None:
    first, last = decided(rounds(1)).cells[0], decided(rounds(4)).cells[0]
    assert last.upper - last.lower < (first.upper - first.lower) * 0.6
    assert (first.prompts, last.prompts) == (256, 1024)


def test_the_same_prompts_again_are_no_new_clusters() -> None:
    again = [part(PREFILL, seed=at) for at in range(4)]
    made = decided([[found, part(DECODE, number=at)] for at, found in enumerate(again)])
    assert [cell.prompts for cell in made.cells] == [1024, 256]
    assert made.cells[1].asked == 1024


def test_a_value_that_is_not_finite_fails_at_once() -> None:
    broken = CellRound(cell=DECODE, asked=1, scores=(), broken=("p7",))
    made = decided([[part(PREFILL), broken]])
    assert made.outcome is QualityOutcome.FAILED
    assert "not finite" in made.reason and "p7" in made.reason


def test_a_stable_arm_that_is_not_finite_can_never_pass() -> None:
    found = rounds()
    found[0].append(CellRound(cell=DECODE, asked=1, scores=(), stable_broken=("p7",)))
    made = decided(found)
    assert made.outcome is QualityOutcome.UNDECIDED and "stable itself" in made.reason


def test_the_top1_tripwire_needs_five_points_and_more_than_chance() -> None:
    assert decided(rounds(drop=0.03)).outcome is QualityOutcome.PASSED
    assert "fewer positions" in decided(rounds(drop=0.06)).reason
    few = [[part(PREFILL), part(DECODE, drop=0.06, prompts=2)]]
    assert decided(few).outcome is QualityOutcome.UNDECIDED


def test_a_cell_without_answers_never_passes() -> None:
    made = decided([[part(PREFILL, number=at)] for at in range(4)])
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "decode at concurrency 16: no prompt was answered" in made.reason
    assert json.loads(json.dumps(made.to_json(), allow_nan=False))["cells"][0]["upper"] is None


def test_few_prompts_never_pass_however_equal() -> None:
    scores = tuple(
        Score(prompt_id=str(at), stable=0, canary=0, top1_drop=0, tokens=9) for at in range(63)
    )
    found = [CellRound(cell=cell, asked=63, scores=scores) for cell in PLAN.cells]
    assert "63 prompts, at least 64" in decided([found]).reason


def test_missing_answers_are_named_and_never_pass() -> None:
    found = [[part(PREFILL, number=at), part(DECODE, number=at, lost=16)] for at in range(4)]
    made = decided(found)
    assert made.outcome is QualityOutcome.UNDECIDED
    assert "64 of 1024 answers are missing, first canary: no answer to 0" in made.reason


def test_nothing_answered_is_no_quality() -> None:
    assert isinstance(decide(PLAN, []), NoQuality)


def test_the_whole_level_is_stated() -> None:
    budget = PLAN.budget()
    assert budget["alpha_fail_each_cell_and_kind"] == pytest.approx(0.01 / 4)
    assert budget["alpha_pass_each_cell"] == 0.01


def test_more_rounds_than_planned_are_refused() -> None:
    with pytest.raises(UsageError, match="5 rounds, 4 were planned"):
        decide(PLAN, rounds(5))


def test_a_cell_outside_the_plan_is_refused() -> None:
    with pytest.raises(UsageError, match="prefill at concurrency 64 is no cell"):
        decide(PLAN, [[part(ProbeCell(ProbePath.PREFILL, 64))]])


@pytest.mark.parametrize(
    "wrong", [{"alpha": 0.7}, {"alpha": math.nan}, {"rounds": 0}, {"epsilon_nats": 0.0}]
)
def test_a_plan_that_cannot_be_carried_out_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="quality plan"):
        ProbePlan(**{"cells": (PREFILL,), "rounds": 4, **wrong})  # type: ignore[arg-type]
