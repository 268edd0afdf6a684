"""Each guard reads what it is named after, and one that is not known is no other."""

import math

import numpy as np
import pytest

from moe_serve.analysis.guards import Guard, GuardKind, observe_guard
from moe_serve.analysis.service import CounterSeries, Measure

MEASURES = {
    GuardKind.TTFT: Measure.TTFT,
    GuardKind.ITL: Measure.ITL,
    GuardKind.ERRORS: Measure.FAILED,
    GuardKind.PREEMPTIONS: Measure.PREEMPTED,
}


def series(measure: Measure, count: float) -> list[CounterSeries]:
    edges = (0.1, math.inf) if measure in (Measure.TTFT, Measure.ITL) else (math.inf,)
    return [
        CounterSeries(
            measure=measure, edge=edge, times=np.array([0.0, 30.0]), values=np.array([0.0, count])
        )
        for edge in edges
    ]


def blocks(guard: Guard, measure: Measure, count: float = 1000.0) -> int:
    arm = series(measure, count)
    found = observe_guard(guard, arm, arm, start=0.0, seconds=60.0, blocks=1)
    return len(found.stable)


def test_every_guard_reads_its_own_measure() -> None:
    assert set(MEASURES) == set(GuardKind)
    for kind, own in MEASURES.items():
        for measure in MEASURES.values():
            assert blocks(Guard(kind=kind, margin=0.1), measure) == int(measure is own)


@pytest.mark.parametrize("measure", MEASURES.values())
def test_unknown_guard_reads_no_other_measure(measure: Measure) -> None:
    unknown = str.__new__(GuardKind, "tpot")
    unknown._name_, unknown._value_ = "TPOT", "tpot"
    with pytest.raises(AssertionError, match="tpot"):
        blocks(Guard(kind=unknown, margin=0.1), measure)


@pytest.mark.parametrize(
    ("quantile", "enough"), [(0.5, 10), (0.8, 25), (0.9, 50), (0.95, 100), (0.99, 500)]
)
def test_quantile_needs_exactly_five_observations_above_it(quantile: float, enough: int) -> None:
    """0.9 is no binary number: 50 x (1 - 0.9) is a little below 5."""
    guard = Guard(kind=GuardKind.TTFT, margin=0.1, quantile=quantile)
    for count, known in ((enough, True), (enough - 1, False)):
        arm = series(Measure.TTFT, float(count))
        found = observe_guard(guard, arm, arm, start=0.0, seconds=60.0, blocks=1)
        assert (found.stable[0][0] is not None) is known
