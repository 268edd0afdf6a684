"""What must never earn a promotion: fleets that look faster, and are not shown to be."""

import math
from array import array
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.guards import Guard, GuardKind
from moe_serve.analysis.history import History
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import EXACT_ROWS, OVERFLOW, Cell, CellKind
from moe_serve.config.policy_file import parse
from moe_serve.quality.finding import finding
from moe_serve.quality.result import QualityOutcome
from moe_serve.report.explanation import explain
from moe_serve.sources.assemble import ArmSelector, assemble
from moe_serve.sources.streams import Stream, Streams
from moe_serve.telemetry import slots
from tests.testing.histories import START, Fleet, Users, streams
from tests.testing.probed import probed
from tests.testing.verdicts import RULES, SAME

HOURS = 3.0
BEGAN = "moe_serve_source_start_timestamp_seconds"
FLEET = Fleet(hours=HOURS, interval=30)


def history(made: Streams) -> History:
    return assemble(made, ArmSelector(), START, START + HOURS * 3600, "memory")


def judged(made: Streams, rules: AnalysisPlan = RULES) -> Findings:
    return examine(history(made), rules, SAME)


def fleet(change: Callable[[Stream], None] = lambda _: None, **options: object) -> Streams:
    made = streams(replace(FLEET, **options))  # type: ignore[arg-type]
    for stream in list(made):
        change(stream)
    return made


def copied(made: Streams, stream: Stream, values: "np.ndarray", **labels: str) -> None:
    own = {**stream.labels, **labels}
    copy = made.add(stream.name + repr(sorted(own.items())), stream.name, own)
    copy.times.extend(stream.times)
    copy.values.extend(values.tolist())


def counts(stream: Stream, *, kind: str = "step") -> bool:
    return f"_{kind}" in stream.name and "bucket" in stream.labels


def passed(found: Findings, name: str) -> bool:
    (check,) = (c for c in found.judgement.checks if c.name == name)
    return check.passed


def test_the_untouched_fleet_is_promoted() -> None:
    assert judged(fleet()).judgement.verdict.value == "PROMOTE"


@pytest.mark.parametrize(
    ("hours", "grade", "against"),
    [
        (0.0, "A", "a fresh baseline: both arms' pods began together"),
        (1.9, "A", "a fresh baseline: both arms' pods began together"),
        (312.0, "B", "pods that began 312 h before the canary's, so one grade lower"),
        (-5.0, "B", "pods that began 5 h after the canary's, so one grade lower"),
    ],
)
def test_without_a_fresh_baseline_the_evidence_is_one_grade_lower(
    hours: float, grade: str, against: str
) -> None:
    def change(stream: Stream) -> None:
        if stream.name == BEGAN and stream.labels["track"] == "stable":
            stream.values[:] = array("d", [value - hours * 3600 for value in stream.values])

    found = judged(fleet(change))
    assert found.to_json()["evidence"] == grade
    assert found.to_json()["comparator"] == against
    assert f"evidence {grade}: counters in the worker" in explain(found)
    assert f"against {against})" in explain(found)


def test_a_stable_arm_that_was_restarted_is_as_old_as_its_processes_now() -> None:
    def change(stream: Stream) -> None:
        if stream.name == BEGAN and stream.labels["track"] == "stable":
            first = stream.values[0]
            stream.values[:3] = array("d", [first - 1e6, math.nan, first - 1e6])

    assert judged(fleet(change)).to_json()["evidence"] == "A"


def test_pods_that_do_not_tell_when_they_began_lower_nothing() -> None:
    made = fleet()
    for stream in [stream for stream in made if stream.name == BEGAN]:
        stream.values[:] = array("d", [math.nan] * len(stream.values))
    found = judged(made).to_json()
    assert (found["evidence"], "comparator" in found) == ("A", False)


def test_once_the_baseline_is_gone_speed_and_guards_tell_of_nothing_and_answers_still_do() -> None:
    """As in the watch after a promotion: the canary alone has traffic, and turns bad."""
    half = START + HOURS * 1800

    def change(stream: Stream) -> None:
        over = next((n for n, time in enumerate(stream.times) if time > half), len(stream.times))
        if stream.labels["track"] == "stable":
            del stream.times[over:], stream.values[over:]
        elif stream.labels.get("finished_reason") == "error":
            for number in range(over, len(stream.values)):
                stream.values[number] += 20.0 * (number - over)

    rules = replace(RULES, guards=(Guard(kind=GuardKind.ERRORS, margin=0.001),))
    made = fleet(change, users=Users())
    told = examine(history(made), rules, SAME).judgement
    assert (told.verdict.value, "blind" in told.reason) == ("INVALID", True)
    differ = examine(history(made), rules, finding(probed(QualityOutcome.FAILED))).to_json()
    assert (differ["verdict"], differ["quality"]["outcome"]) == ("INVALID", "failed")


def test_fewer_eager_steps_are_no_gain() -> None:
    """Both arms are equal in each mode; stable runs eagerly four times as often."""
    made = fleet(gain=1.0, noise=0.01)
    for stream in [s for s in made if counts(s)]:
        share = 0.1 if stream.labels["track"] == "canary" else 0.4
        slow = 1.5 if "seconds" in stream.name else 1.0
        values = np.array(stream.values)
        copied(made, stream, values * share * slow, mode="eager")
        copied(made, stream, values * (1 - share), mode="full")
        stream.values[:] = type(stream.values)("d", [0.0] * len(values))
    found = judged(made)
    assert isinstance(found.estimates.step, Estimate)
    assert found.estimates.step.theta == pytest.approx(0, abs=0.01)
    assert {cell.cell.mode for cell in found.estimates.step.cells} == {"eager", "full"}
    assert found.judgement.verdict.value != "PROMOTE"


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"bucket": "+Inf"}, "step, batch of unknown size"),
        ({"phase": "any"}, "step, phase any, batch 64"),
        ({"bucket": "128"}, "step, batch 65 to 128"),
        ({"bucket": "128", "mode": "eager"}, "step, batch 65 to 128, eager"),
    ],
)
def test_busy_time_that_is_of_no_exact_size_is_not_covered(
    labels: dict[str, str], named: str
) -> None:
    def change(stream: Stream) -> None:
        if stream.labels.get("bucket") == "64":
            stream.labels.update(labels)  # type: ignore[attr-defined]

    found = judged(fleet(change))
    assert found.judgement.covered_weight == pytest.approx(0.58, abs=0.02)
    assert found.judgement.verdict.value == "KEEP_GOING"
    assert f"not covered: {named}" in " ".join(c.detail for c in found.judgement.checks)


def test_a_graph_above_the_eager_sizes_is_exact() -> None:
    def change(stream: Stream) -> None:
        if stream.labels.get("bucket") == "64":
            stream.labels.update(bucket="128", mode="full")  # type: ignore[attr-defined]

    assert judged(fleet(change)).judgement.covered_weight == pytest.approx(1)


def test_exact_sizes_are_the_records_own() -> None:
    assert slots.eager_bucket(EXACT_ROWS) == EXACT_ROWS
    assert slots.eager_bucket(EXACT_ROWS + 1) > EXACT_ROWS + 1
    assert slots.OVERFLOW == OVERFLOW


@pytest.mark.parametrize("silent", [("stable", "canary"), ("canary",)])
def test_arms_that_state_no_configuration_are_not_promoted(silent: tuple[str, ...]) -> None:
    def change(stream: Stream) -> None:
        if stream.name.endswith("_info") and stream.labels["track"] in silent:
            for name in ("policy", "vllm", "worker_config_digest"):
                stream.labels.pop(name, None)  # type: ignore[attr-defined]

    rules = replace(RULES, under_test=("policy", "vllm", "worker_config_digest"))
    found = judged(fleet(change), rules)
    assert found.judgement.verdict.value == "KEEP_GOING"
    assert "configuration is not known" in found.judgement.reason
    assert not passed(found, "configuration_known")


def test_one_silent_pod_leaves_its_arms_configuration_unknown() -> None:
    def change(stream: Stream) -> None:
        if stream.labels["pod"] == "canary-1":
            stream.labels.pop("worker_config_digest", None)  # type: ignore[attr-defined]

    found = judged(fleet(change))
    assert found.judgement.verdict.value == "INVALID"
    assert "0123456789abcdef | unknown" in found.judgement.reason


def test_another_digest_is_no_padding_canary_unless_it_is_declared() -> None:
    other = fleet(digests=("a" * 16, "b" * 16), versions=("0.32.0", "0.33.0"))
    plain = parse({"spread": {"gpu_sd": 0.003}}, "p")
    assert judged(other, plain).judgement.verdict.value == "INVALID"
    upgrade = {"under_test": ["policy", "vllm", "worker_config_digest"]}
    declared = parse({"spread": {"gpu_sd": 0.003}, "validity": upgrade}, "p")
    told = {"worker_config_digest": "a" * 16}, {"worker_config_digest": "b" * 16}
    same = finding(probed(QualityOutcome.PASSED, known=told))
    assert examine(history(other), declared, same).judgement.verdict.value == "PROMOTE"
    assert judged(fleet(), plain).judgement.verdict.value == "PROMOTE"


@pytest.mark.parametrize(
    ("late", "share", "invalid"),
    [(70, 0.2, None), (70, 0.0, [1]), (400, 0.2, [5, 6])],
)
def test_a_pod_that_is_scraped_late_is_no_alarm_by_itself(
    late: float, share: float, invalid: list[int] | None
) -> None:
    """Nothing is said of what is void before it could be little enough."""
    made = fleet()
    for stream in made:
        keep = next(n for n, at in enumerate(stream.times) if at >= START + late)
        del stream.times[:keep], stream.values[:keep]
    whole = history(made)
    rules = replace(RULES, policy=replace(RULES.policy, max_void_share=share))
    alarmed = [
        minutes
        for minutes in range(1, 7)
        if examine(whole.until(START + 60 * minutes), rules, SAME).judgement.verdict.value
        == "INVALID"
    ]
    assert alarmed == (invalid or [])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2])
@pytest.mark.parametrize("calibrated", [False, True])
def test_data_that_lack_in_every_other_window_are_no_evidence_at_any_look(
    share: float, calibrated: bool
) -> None:
    made = fleet()
    for stream in made:
        keep = [n for n, at in enumerate(stream.times) if (at - START) // 60 % 2 == 0]
        stream.times[:] = type(stream.times)("d", [stream.times[n] for n in keep])
        stream.values[:] = type(stream.values)("d", [stream.values[n] for n in keep])
    known = Calibration(block_seconds=600, block_variance=1e-4, blocks=72, autocorrelation=0.1)
    rules = replace(
        RULES,
        policy=replace(RULES.policy, max_void_share=share),
        calibration=known if calibrated else None,
    )
    whole = history(made)
    for blocks in range(rules.interim_analyses.first, 18):
        found = examine(whole.until(START + 600 * blocks), rules, SAME)
        assert found.judgement.verdict.value == "INVALID", blocks


def test_a_crossover_is_told_as_declared() -> None:
    rules = replace(RULES, design=Design.CROSSOVER, pod_variation=PodVariation(start_sd=0.003))
    found = judged(fleet(), rules)
    assert not passed(found, "design")
    assert "declares that the arms swap their GPUs" in explain(found)


def test_an_earlier_look_knows_its_own_traffic_split() -> None:
    made = fleet(users=Users())
    for stream in made:
        if stream.name == "vllm:request_success_total" and stream.labels["track"] == "canary":
            stream.values[:] = type(stream.values)("d", [v * 3 for v in stream.values])
    rules = replace(RULES, canary_share=0.5)
    whole = history(made)
    assert examine(whole, rules, SAME).judgement.verdict.value == "INVALID"
    early = examine(whole.until(START + 2 * 3600), rules, SAME)
    assert "sample-ratio mismatch" in early.judgement.reason
    assert early.judgement.verdict.value == "INVALID"
    assert (
        0 < (early.observations.validity.requests or pytest.fail()).canary < whole.canary.requests
    )


def test_a_registered_cell_that_never_ran_is_named_with_its_share() -> None:
    weights = {
        Cell(kind=CellKind.STEP, layer=None, bucket=bucket): share
        for bucket, share in ((8, 0.5), (64, 0.35), (512, 0.15))
    }
    found = judged(fleet(), replace(RULES, weights=weights))
    assert isinstance(found.estimates.step, Estimate)
    assert [(str(u.cell), u.weight) for u in found.estimates.step.uncovered] == [
        ("step, batch 257 to 512", pytest.approx(0.15))
    ]
    assert found.estimates.step.covered_weight == pytest.approx(0.85)


def test_a_registered_batch_size_is_of_all_its_modes() -> None:
    made = fleet()
    for stream in [s for s in made if counts(s)]:
        values = np.array(stream.values)
        copied(made, stream, values / 4, mode="eager")
        copied(made, stream, values * 3 / 4, mode="full")
        stream.values[:] = type(stream.values)("d", [0.0] * len(values))
    weights = {Cell(kind=CellKind.STEP, layer=None, bucket=8): 1.0}
    found = judged(made, replace(RULES, weights=weights))
    assert isinstance(found.estimates.step, Estimate)
    assert {c.cell.mode: c.weight for c in found.estimates.step.cells} == {
        "eager": pytest.approx(0.25),
        "full": pytest.approx(0.75),
    }


@pytest.mark.parametrize(("slower", "verdict"), [(1.6, "KEEP_GOING"), (1.0, "PROMOTE")])
def test_a_clear_loss_with_prefill_forbids_a_promotion(slower: float, verdict: str) -> None:
    made = fleet()
    for stream in [s for s in made if counts(s) and s.labels["bucket"] == "64"]:
        worse = slower if stream.labels["track"] == "canary" and "seconds" in stream.name else 1
        copied(made, stream, np.array(stream.values) * worse, phase="mixed", bucket="2048")
    found = judged(made)
    assert found.judgement.verdict.value == verdict
    assert passed(found, "mixed_no_harm") is (slower == 1)
    assert ("clearly slower: batches with prefill" in found.judgement.reason) is (slower > 1)


def test_a_batch_size_that_is_not_to_decide_still_forbids_where_it_is_clearly_slower() -> None:
    def slow(stream: Stream) -> None:
        cell = stream.labels["track"], stream.labels.get("bucket")
        if cell == ("canary", "8") and "seconds" in stream.name:
            stream.values[:] = type(stream.values)("d", [1.6 * v for v in stream.values])

    rules = replace(RULES, batches=(32, 64), policy=replace(RULES.policy, min_covered_weight=0.5))
    assert judged(fleet(gain=1.12), rules).judgement.verdict.value == "PROMOTE"
    found = judged(fleet(slow, gain=1.12), rules).judgement
    assert found.verdict.value != "PROMOTE"
    assert "clearly slower: step, batch 8" in found.reason


def test_lost_neurons_stand_in_the_reason() -> None:
    def change(stream: Stream) -> None:
        if "lost_neurons" in stream.name and stream.labels["track"] == "canary":
            stream.values[:] = type(stream.values)("d", [576.0] * len(stream.values))

    assert judged(fleet(change)).judgement.reason.endswith("; the canary loses 576 of 2880 neurons")
    assert "neurons" not in judged(fleet()).judgement.reason


def test_a_window_is_void_once_whatever_happened_in_it() -> None:
    """A process that restarts at every scrape, with a time that is no number."""
    made = fleet()
    for stream in made:
        if stream.labels["track"] == "canary":
            if stream.name.endswith("source_start_timestamp_seconds"):
                stream.values[:] = type(stream.values)("d", map(float, range(len(stream.values))))
            if counts(stream):
                stream.values[::3] = type(stream.values)("d", [math.inf] * len(stream.values[::3]))
    found = judged(made)
    assert found.judgement.verdict.value == "INVALID"
    assert found.observations.canary.void_share is not None
    assert 0.9 < found.observations.canary.void_share <= 1
