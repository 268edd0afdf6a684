import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.analysis.checks import check_all, undecided
from moe_serve.analysis.estimate import Estimate, Estimates, NoEstimate, UncoveredCell
from moe_serve.analysis.estimator import EstimatorSettings
from moe_serve.analysis.judge import decide
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.policy import OnNoGain, Policy, Uncovered
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.validity import RequestCounts, Validity
from moe_serve.analysis.verdict import Judgement, Severity, Verdict
from moe_serve.errors import UsageError
from moe_serve.quality.finding import QualityFinding, accept_if_policy, finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from tests.testing.probed import probed
from tests.testing.samples import TERMS, estimates

POLICY = Policy()
DONE = Validity(
    deadline_blocks=18,
    seen_blocks=18,
    block_seconds=600,
    analysis_plan_digest="sha256:1",
    void_share=0.0,
)
QUALITY = finding(probed(QualityOutcome.PASSED))
assert isinstance(QUALITY, QualityFinding)
BAD = replace(QUALITY, outcome=QualityOutcome.FAILED, reason="far apart")
UNSURE = replace(QUALITY, outcome=QualityOutcome.UNDECIDED, reason="too few prompts")
STEP, KERNEL = estimates(step=1.08, kernel=1.1, blocks=9)
assert isinstance(STEP, Estimate)
NOTHING = NoEstimate(kind=CellKind.STEP, reason="no pairs", blocks=0)


def at(lo: float, hi: float, covered: float = 1.0) -> Estimate:
    """A step estimate with a given interval, in log ratios."""
    assert isinstance(STEP, Estimate)
    lost = UncoveredCell(cell=STEP.cells[0].cell, weight=1 - covered, blocks=0)
    return replace(
        STEP, theta=(lo + hi) / 2, lo=lo, hi=hi, covered_weight=covered,
        uncovered=(lost,) if covered < 1 else (),
    )  # fmt: skip


def judged(
    step: Estimate | NoEstimate = STEP,
    quality: QualityFinding | NoQuality = QUALITY,
    validity: Validity = DONE,
    policy: Policy = POLICY,
    byte_bound: float | None = None,
    kernel: Estimate | NoEstimate = KERNEL,
    settings: EstimatorSettings = TERMS,
) -> Judgement:
    estimates = Estimates(
        primary_kind=policy.primary, step=step, kernel=kernel, equal=NOTHING, mixed=NOTHING
    )
    quality = accept_if_policy(policy.quality_policy, quality)
    checks = check_all(policy, settings, estimates, quality, validity, byte_bound=byte_bound)
    return decide(policy, settings, estimates, checks, quality, validity)


EARLY = replace(DONE, seen_blocks=9)
VOID = replace(DONE, void_share=0.25, void_reasons=("canary: 5 of 20: process restarted",))
SPLIT = RequestCounts(stable=5000, canary=4000, canary_share=0.5)


AS_COVERED = Policy(uncovered=Uncovered.AS_COVERED)


def slower_cell() -> Estimate:
    """Good as a whole, with one cell that lost a tenth."""
    assert isinstance(STEP, Estimate)
    cells = (replace(STEP.cells[0], theta=-0.1, lo=-0.12, hi=-0.08), *STEP.cells[1:])
    return replace(STEP, cells=cells)


def drifting() -> Estimate:
    """Fast in the first half, slow in the second."""
    assert isinstance(STEP, Estimate)
    point = STEP.series[0]
    values = [0.2 + 0.001 * (n % 2) if n < 8 else 0.05 + 0.001 * (n % 2) for n in range(16)]
    return replace(STEP, series=tuple(replace(point, theta=value) for value in values))


def quiet() -> EstimatorSettings:
    """As if the A/A run had been far quieter than this run."""
    assert isinstance(STEP, Estimate)
    variance = STEP.in_run_sd**2 / 20
    return replace(
        TERMS,
        calibration=Calibration(
            block_seconds=600, block_variance=variance, blocks=144, autocorrelation=0.0
        ),
    )


HOLD = replace(POLICY, on_no_gain=OnNoGain.KEEP_GOING)


@pytest.mark.parametrize(
    ("options", "verdict", "reason"),
    [
        ({}, Verdict.PROMOTE, "faster and the same answers"),
        ({"quality": BAD}, Verdict.ROLLBACK, "the answers differ: far apart"),
        ({"quality": UNSURE}, Verdict.KEEP_GOING, "too few prompts"),
        ({"quality": NoQuality(reason="nobody asked")}, Verdict.KEEP_GOING, "nobody asked"),
        ({"step": at(-0.2, -0.1)}, Verdict.ROLLBACK, "harm"),
        ({"step": at(-0.02, 0.02)}, Verdict.ROLLBACK, "no gain"),
        ({"step": at(-0.02, 0.02), "policy": HOLD}, Verdict.KEEP_GOING, "no gain"),
        ({"step": at(-0.2, -0.1), "policy": HOLD}, Verdict.ROLLBACK, "harm"),
        ({"step": at(0.028, 0.06), "validity": EARLY}, Verdict.KEEP_GOING, "more decide it"),
        ({"step": at(0.02, 0.06)}, Verdict.KEEP_GOING, "a person decides"),
        ({"step": at(0.0, 2 * POLICY.log_margin + 1e-4)}, Verdict.KEEP_GOING, "deadline comes"),
        ({"step": at(0.05, 0.06, covered=0.5)}, Verdict.KEEP_GOING, "lack data"),
        ({"step": at(0.05, 0.06, covered=0.9)}, Verdict.PROMOTE, "faster"),
        # 3.2 % of 90 % is 2.9 % of the whole.
        ({"step": at(0.032, 0.06, covered=0.9)}, Verdict.KEEP_GOING, "the rest is taken as no gai"),
        ({"step": at(0.032, 0.06, covered=0.9), "policy": AS_COVERED}, Verdict.PROMOTE, "faster"),
        ({"step": at(0.032, 0.06)}, Verdict.PROMOTE, "faster"),
        ({"step": NOTHING}, Verdict.INVALID, "no data: no pairs"),
        ({"step": NOTHING, "quality": BAD}, Verdict.INVALID, "the answers differ"),
        ({"step": NOTHING, "validity": EARLY}, Verdict.KEEP_GOING, "no estimate yet"),
        ({"validity": VOID}, Verdict.INVALID, "25.0% of the windows are void"),
        ({"validity": replace(DONE, dead_arms=("canary",))}, Verdict.INVALID, "an arm died"),
        ({"validity": replace(DONE, config_differences=("tp",))}, Verdict.INVALID, "tp"),
        ({"validity": replace(DONE, blind_seconds=901)}, Verdict.INVALID, "blind"),
        ({"validity": replace(DONE, requests=SPLIT)}, Verdict.INVALID, "sample-ratio mismatch"),
        ({"validity": EARLY}, Verdict.PROMOTE, "faster"),
        ({"validity": EARLY, "step": at(-0.2, -0.1)}, Verdict.ROLLBACK, "harm"),
        ({"validity": EARLY, "quality": BAD}, Verdict.ROLLBACK, "differ"),
        ({"step": slower_cell()}, Verdict.KEEP_GOING, "clearly slower: step, batch 2"),
        ({"step": drifting()}, Verdict.INVALID, "one arm drifts"),
        ({"settings": quiet()}, Verdict.INVALID, "the noise is unlike"),
    ],
)
def test_the_decision_table(options: dict[str, object], verdict: Verdict, reason: str) -> None:
    made = judged(**options)  # type: ignore[arg-type]
    assert made.verdict is verdict, made.reason
    assert reason in made.reason


@pytest.mark.parametrize("covered", [1.0, 0.9])
@pytest.mark.parametrize("ends", [(-0.2, -0.1), (0.02, 0.06), (0.032, 0.06), (0.05, 0.06)])
def test_a_measurement_may_end_where_its_speed_alone_promotes_or_rolls_back(
    ends: tuple[float, float], covered: float
) -> None:
    step = at(*ends, covered=covered)
    assert undecided(POLICY, step) == (judged(step).verdict is Verdict.KEEP_GOING)


@given(
    st.sampled_from((STEP, NOTHING, at(0.05, 0.06, covered=0.5), at(0.02, 0.06), at(-1, -0.5))),
    st.sampled_from((QUALITY, BAD, UNSURE, NoQuality(reason="none"))),
    st.sampled_from((0, 9, 18, 20)),
    st.sampled_from((DONE, VOID)),
    st.sampled_from(OnNoGain),
)
def test_only_gain_coverage_and_quality_together_promote(
    step: Estimate | NoEstimate,
    quality: QualityFinding | NoQuality,
    seen: int,
    base: Validity,
    on_no_gain: OnNoGain,
) -> None:
    validity = replace(base, seen_blocks=seen)
    made = judged(step, quality, validity, replace(POLICY, on_no_gain=on_no_gain))
    if made.verdict is Verdict.PROMOTE:
        assert (step, quality, base) == (STEP, QUALITY, DONE)
        assert all(c.passed for c in made.checks if c.severity is Severity.BLOCKING)
    if any(not c.passed for c in made.checks if c.severity is Severity.BLOCKING):
        assert made.verdict is not Verdict.PROMOTE


def test_the_primary_rate_decides() -> None:
    no_kernel = NoEstimate(kind=CellKind.KERNEL, reason="no markers", blocks=0)
    policy = replace(POLICY, primary=CellKind.KERNEL)
    assert judged(kernel=no_kernel).verdict is Verdict.PROMOTE
    assert judged(kernel=no_kernel, policy=policy).verdict is Verdict.INVALID
    assert isinstance(KERNEL, Estimate)
    assert judged(policy=policy).theta == KERNEL.theta


def test_a_gain_above_the_byte_bound_is_flagged_but_does_not_roll_back() -> None:
    assert isinstance(KERNEL, Estimate)
    made = judged(byte_bound=KERNEL.lo - 0.01)
    assert (made.verdict, made.above_bound) == (Verdict.PROMOTE, True)
    assert "Warning" in made.reason
    check = made.checks[-1]
    assert (check.name, check.passed, check.severity) == (
        "within_byte_bound",
        False,
        Severity.WARNING,
    )


@pytest.mark.parametrize("bound", [None, 0.5])
def test_a_gain_within_the_byte_bound_is_not_flagged(bound: float | None) -> None:
    made = judged(byte_bound=bound)
    assert (made.above_bound, made.checks[-1].passed) == (False, True)


def test_the_json_has_the_agreed_shape() -> None:
    made = judged(byte_bound=0.5)
    document = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert list(document) == [
        "verdict", "reason", "theta", "lo", "hi", "speedup", "covered_weight", "strata", "quality",
        "evidence", "analysis_plan_digest", "above_bound", "checks",
    ]  # fmt: skip
    assert isinstance(STEP, Estimate)
    assert document["speedup"] == math.exp(STEP.theta)
    assert document["quality"]["outcome"] == "passed"
    assert {(s["kind"], s["layer"], s["bucket"]) for s in document["strata"]} == {
        (kind, None, bucket) for kind in ("kernel", "step") for bucket in (2, 4, 8)
    }


def test_no_data_is_null_in_json() -> None:
    document = judged(step=NOTHING, quality=NoQuality(reason="none")).to_json()
    assert [document[key] for key in ("theta", "lo", "hi", "speedup")] == [None] * 4


def test_pods_are_asked_for_where_no_time_decides() -> None:
    far = replace(TERMS, design=Design.PARALLEL, pod_variation=PodVariation(gpu_sd=0.05))
    made = judged(at(POLICY.log_margin - 0.1, POLICY.log_margin + 0.12), settings=far)
    assert "more pods an arm, or a crossover" in made.reason


@pytest.mark.parametrize(
    ("key", "value"), [("margin", -0.1), ("alpha_promote", 0.0), ("max_void_share", 1.0)]
)
def test_senseless_policies_are_refused(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=key):
        Policy(**{key: value})  # type: ignore[arg-type]


def test_plan_digest_follows_its_parts_not_their_order() -> None:
    cells = [Cell(kind=CellKind.STEP, layer=None, bucket=bucket) for bucket in (2, 4)]
    plan = AnalysisPlan(policy=POLICY, weights=dict.fromkeys(cells, 0.5))
    assert plan.digest == replace(plan, weights=dict.fromkeys(cells[::-1], 0.5)).digest
    assert plan.digest != replace(plan, policy=replace(POLICY, margin=0.02)).digest
    assert plan.digest != replace(plan, weights=dict(zip(cells, (0.4, 0.6), strict=True))).digest


def test_a_gain_of_exactly_the_margin_is_rarely_promoted_however_often_one_looks() -> None:
    promoted = 0
    for seed in range(150):
        step, _ = estimates(step=1 + POLICY.margin, kernel=1.0, noise=0.02, seed=seed, blocks=20)
        assert isinstance(step, Estimate)
        lows = [point.running_lo for point in step.series if point.running_lo is not None]
        promoted += max(lows) > POLICY.log_margin
    # 5 % is the design's error; 11 % leaves room for three standard errors of 150 runs.
    assert promoted / 150 <= 0.11


def test_no_kernel_estimate_leaves_the_bound_unchecked() -> None:
    made = judged(kernel=replace(NOTHING, kind=CellKind.KERNEL), byte_bound=0.1)
    assert (made.above_bound, made.checks[-1].number) == (False, None)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_exit_code(verdict: Verdict) -> None:
    codes = {"PROMOTE": 0, "ROLLBACK": 10, "KEEP_GOING": 20, "INVALID": 30}
    assert verdict.exit_code == codes[verdict.value]
