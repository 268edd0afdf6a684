"""Guards: what users feel must be shown not to get worse."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.guards import Guard, GuardKind, rate_ends
from moe_serve.analysis.noise import Calibration, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.service import CounterSeries, Measure, grown, quantile
from moe_serve.errors import UsageError
from moe_serve.judge.audit import inputs, reproduce
from moe_serve.sources.assemble import ArmSelector, assemble
from tests.testing.histories import START, Fleet, Users, streams
from tests.testing.verdicts import SAME

GUARDS = (
    Guard(kind=GuardKind.TTFT, margin=0.1),
    Guard(kind=GuardKind.ITL, margin=0.05),
    Guard(kind=GuardKind.ERRORS, margin=0.001),
    Guard(kind=GuardKind.PREEMPTIONS, margin=0.02),
)
RULES = AnalysisPlan(
    pod_variation=PodVariation(gpu_sd=0.003, gpu_freedom=6),
    under_test=("policy",),
    calibration=Calibration(
        block_seconds=600, block_variance=1e-4, blocks=144, autocorrelation=0.1
    ),
    guards=GUARDS,
)


def judged(users: Users | None, rules: AnalysisPlan = RULES, hours: float = 4) -> Findings:
    made = streams(Fleet(users=users, hours=hours))
    return examine(
        assemble(made, ArmSelector(), START, START + hours * 3600, "memory"), rules, SAME
    )


def check(found: Findings, name: str) -> tuple[float | None, bool]:
    (one,) = (c for c in found.judgement.checks if c.name == f"guard_{name}")
    return one.number, one.passed


def test_a_canary_that_is_faster_and_no_worse_for_users_is_promoted() -> None:
    found = judged(Users())
    assert found.judgement.verdict.value == "PROMOTE"
    for guard in GUARDS:
        number, passed = check(found, guard.name)
        assert passed
        assert number is not None


@pytest.mark.parametrize(
    ("users", "named"),
    [
        (Users(ttft=(0.3, 0.45)), "ttft_p99: +"),
        (Users(itl=(0.012, 0.015)), "itl_p99: +"),
        (Users(errors=(0.0, 0.01)), "errors: "),
        (Users(preemptions=(0.005, 0.2)), "preemptions: "),
    ],
)
def test_what_is_shown_to_be_worse_rolls_back(users: Users, named: str) -> None:
    found = judged(users)
    assert found.judgement.verdict.value == "ROLLBACK"
    assert f"worse for users: {named}" in found.judgement.reason


@pytest.mark.parametrize(
    ("users", "named"),
    [
        (None, "ttft_p99: stable and canary: no such metric of vLLM was found"),
        (Users(requests=0.5), "ttft_p99: 0 blocks with enough requests of both arms"),
        (Users(requests=0.1), "errors: "),
        (Users(ttft=(0.3, 0.33)), "not shown to be within its guard: ttft_p99"),
    ],
)
def test_what_is_not_shown_never_promotes(users: Users | None, named: str) -> None:
    found = judged(users)
    assert found.judgement.verdict.value == "KEEP_GOING"
    assert named in found.judgement.reason


def test_guards_are_in_the_audit_and_the_digest() -> None:
    found = judged(Users())
    kept = json.loads(json.dumps({**inputs(found), "verdict": None}, allow_nan=False))
    assert reproduce(kept).to_json() == found.to_json()
    other = replace(RULES, guards=GUARDS[:1])
    assert (
        judged(Users(), other).judgement.analysis_plan_digest
        != found.judgement.analysis_plan_digest
    )


@pytest.mark.parametrize("margin", [0, -1, 2, math.nan])
def test_a_guard_needs_a_margin(margin: float) -> None:
    with pytest.raises(UsageError, match="guard errors: margin"):
        Guard(kind=GuardKind.ERRORS, margin=margin)


def test_the_ends_of_a_rate_hold_at_all_times() -> None:
    """A thousand streams at a true rate of 0.01, looked at 60 times each."""
    source, alpha, wrong = np.random.default_rng(3), 0.1, 0
    for _ in range(1000):
        events = np.cumsum(source.poisson(0.01 * 200, 60))
        ends = (
            rate_ends(float(k), 200.0 * (n + 1), alpha=alpha, prior_mean=0.005)
            for n, k in enumerate(events)
        )
        wrong += any(not low <= 0.01 <= high for low, high in ends)
    assert wrong <= alpha * 1000


def test_no_event_in_few_requests_proves_little() -> None:
    low, few = rate_ends(0, 100, alpha=0.025, prior_mean=0.001)
    assert low == 0
    assert few > 0.01
    assert rate_ends(0, 100_000, alpha=0.025, prior_mean=0.001)[1] < 0.001


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ({1.0: 50, 2.0: 100, math.inf: 100}, 0.5, 1.0),
        ({1.0: 50, 2.0: 100, math.inf: 100}, 0.75, 1.5),
        ({1.0: 0, 2.0: 100, math.inf: 100}, 0.01, 1.01),
        ({1.0: 50, 2.0: 60, math.inf: 100}, 0.99, 2.0),
        ({1.0: 0, math.inf: 0}, 0.99, None),
        ({math.inf: 10}, 0.99, None),
    ],
)
def test_quantiles_are_prometheus_own(
    counts: dict[float, float], share: float, value: float | None
) -> None:
    assert quantile(counts, share) == (value if value is None else pytest.approx(value))


def test_growth_survives_a_restart_and_gaps() -> None:
    series = CounterSeries(
        measure=Measure.FINISHED,
        edge=0.0,
        times=np.array([0.0, 15, 30, 45, 70]),
        values=np.array([10.0, 14, math.nan, 3, 5]),
    )
    (found,) = grown([series], Measure.FINISHED, 0.0, 60.0, 2).values()
    assert found.tolist() == [4 + 3, 2]
    assert grown([series], Measure.FAILED, 0.0, 60.0, 2) == {}
