"""Guards: what users feel must not get worse by more than a margin, while the canary gets faster.

Each is a test of non-inferiority at every look. A latency's log ratio by block has the same ends as
the speed-up; rare events have a confidence sequence: a Gamma mixture over Poisson rates, with the
counts thinned by their in-run overdispersion. Two arms of equal size and traffic are assumed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import assert_never

import numpy as np

from moe_serve.analysis.estimate import NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.noise import FIRST_ANALYSIS_WITHOUT_CALIBRATION
from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.service import CounterSeries, Measure, grown, quantile
from moe_serve.analysis.table import BlockTable, Estimand
from moe_serve.analysis.verdict import Check
from moe_serve.errors import UsageError

# A block's quantile needs a few observations above it, or it is one request's latency.
_ABOVE = 5
_MIN_REQUESTS = 50
_PRIOR = 0.5
_HALVINGS = 200


class GuardKind(StrEnum):
    """Time to first token, time between tokens, failed requests, preemptions."""

    TTFT = "ttft"
    ITL = "itl"
    ERRORS = "errors"
    PREEMPTIONS = "preemptions"

    @property
    def is_latency(self) -> bool:
        """Whether its margin is a share of a quantile, not a number a request."""
        return self.measure in (Measure.TTFT, Measure.ITL)

    @property
    def measure(self) -> Measure:
        """What servers count for it."""
        match self:
            case GuardKind.TTFT:
                return Measure.TTFT
            case GuardKind.ITL:
                return Measure.ITL
            case GuardKind.ERRORS:
                return Measure.FAILED
            case GuardKind.PREEMPTIONS:
                return Measure.PREEMPTED
        assert_never(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """`margin` is what may be lost: 0.1 allows a latency's `quantile` to rise by 10 %, 0.001 one
    event more in a thousand requests.
    """

    kind: GuardKind
    margin: float
    quantile: float = 0.99

    def __post_init__(self) -> None:
        """Refuse a guard that would let everything, or nothing, pass."""
        if not 0 < self.margin <= 1 or not 0.5 <= self.quantile < 1:
            raise UsageError(
                f"guard {self.kind.value}: margin must be above 0 and at most 1, quantile from 0.5 "
                "to below 1"
            )

    @property
    def name(self) -> str:
        """`ttft_p99`, `errors`."""
        percent = f"{self.quantile * 100:g}".replace(".", "_")
        return f"{self.kind.value}_p{percent}" if self.kind.is_latency else self.kind.value


Pair = tuple[float | None, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardBlocks:
    """Per block of an arm: (quantile in seconds or number of events, observations or requests)."""

    guard: Guard
    stable: tuple[Pair, ...]
    canary: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardFinding:
    """Shown to hold, shown to be broken, or neither; the check has the number behind it."""

    failed: bool
    check: Check


def observe_guard(
    guard: Guard,
    stable: Sequence[CounterSeries],
    canary: Sequence[CounterSeries],
    *,
    start: float,
    seconds: float,
    blocks: int,
) -> GuardBlocks:
    """The arms' blocks; empty where an arm's servers do not count it at all."""
    found = [
        _latencies(guard, arm, start, seconds, blocks)
        if guard.kind.is_latency
        else _events(guard, arm, start, seconds, blocks)
        for arm in (stable, canary)
    ]
    return GuardBlocks(guard=guard, stable=found[0], canary=found[1])


def _latencies(
    guard: Guard, arm: Sequence[CounterSeries], start: float, seconds: float, blocks: int
) -> tuple[Pair, ...]:
    by_edge = grown(arm, guard.kind.measure, start, seconds, blocks)
    if math.inf not in by_edge:
        return ()
    pairs: list[Pair] = []
    for block in range(blocks):
        cumulative = {edge: float(counts[block]) for edge, counts in by_edge.items()}
        count = cumulative[math.inf]
        # In decimal: 50 * (1 - 0.9) is a little below 5 in binary.
        enough = Decimal(repr(count)) * (1 - Decimal(repr(guard.quantile))) >= _ABOVE
        pairs.append((quantile(cumulative, guard.quantile) if enough else None, count))
    return tuple(pairs)


def _events(
    guard: Guard, arm: Sequence[CounterSeries], start: float, seconds: float, blocks: int
) -> tuple[Pair, ...]:
    measure = guard.kind.measure
    events, requests = (
        sum(grown(arm, which, start, seconds, blocks).values(), start=np.zeros(blocks))
        for which in (measure, Measure.FINISHED)
    )
    if not any(one.measure is measure for one in arm):
        return ()
    return tuple(zip(events.tolist(), requests.tolist(), strict=True))


def conclude_guard(found: GuardBlocks, settings: EstimatorSettings) -> GuardFinding:
    """Whether the margin holds: shown at `alpha_low`, refuted at `alpha_high`, over all looks."""
    kind = found.guard.kind
    if not found.stable or not found.canary:
        arms = [n for n, arm in (("stable", found.stable), ("canary", found.canary)) if not arm]
        return _nothing(found.guard, f"{' and '.join(arms)}: no such metric of vLLM was found")
    return _latency(found, settings) if kind.is_latency else _rate(found, settings)


def _nothing(guard: Guard, reason: str) -> GuardFinding:
    threshold = math.log1p(guard.margin) if guard.kind.is_latency else guard.margin
    check = Check(
        name=f"guard_{guard.name}",
        number=None,
        threshold=threshold,
        passed=False,
        detail=f"{guard.name}: {reason}",
    )
    return GuardFinding(failed=False, check=check)


def _latency(found: GuardBlocks, settings: EstimatorSettings) -> GuardFinding:
    guard, threshold = found.guard, math.log1p(found.guard.margin)
    better = [
        math.log(stable / canary) if stable and canary else math.nan
        for (stable, _), (canary, _) in zip(found.stable, found.canary, strict=True)
    ]
    cell = Cell(kind=CellKind.STEP, layer=None, bucket=0, phase=guard.kind.value)
    table = BlockTable(
        cells=(cell,),
        starts=np.arange(len(better), dtype=np.float64),
        log_ratios=np.array(better, dtype=np.float64).reshape(-1, 1),
        busy=np.ones(1),
    )
    first = min(
        max(settings.interim_analyses.first, FIRST_ANALYSIS_WITHOUT_CALIBRATION),
        settings.interim_analyses.last,
    )
    own = replace(
        settings,
        calibration=None,
        weights=None,
        interim_analyses=replace(settings.interim_analyses, first=first),
    )  # the A/A run's variance is that of the speed
    shown = estimate(table, CellKind.STEP, own, estimand=Estimand.EQUAL)
    if isinstance(shown, NoEstimate) or not any(math.isfinite(b) for b in better):
        few = sum(math.isfinite(b) for b in better)
        return _nothing(guard, f"{few} blocks with enough requests of both arms, {first} needed")
    low, high = -shown.hi, -shown.lo
    return _finding(
        guard,
        high,
        threshold,
        failed=low > threshold,
        told=f"{math.expm1(-shown.theta):+.1%} ({math.expm1(low):+.1%} to "
        f"{math.expm1(high):+.1%}), at most {guard.margin:+.1%} allowed",
    )


def _rate(found: GuardBlocks, settings: EstimatorSettings) -> GuardFinding:
    guard = found.guard
    (stable, canary) = (_total(found.stable), _total(found.canary))
    if min(stable[1], canary[1]) < _MIN_REQUESTS:
        return _nothing(
            guard, f"{min(stable[1], canary[1]):.0f} requests, {_MIN_REQUESTS} needed from each arm"
        )
    thinned = [
        (events / excess, requests / excess)
        for (events, requests), excess in (
            (stable, _excess(found.stable)),
            (canary, _excess(found.canary)),
        )
    ]
    pass_ends, fail_ends = (
        [rate_ends(*arm, alpha=alpha / 2, prior_mean=guard.margin) for arm in thinned]
        for alpha in (settings.alpha_low, settings.alpha_high)
    )
    high, low = pass_ends[1][1] - pass_ends[0][0], fail_ends[1][0] - fail_ends[0][1]
    return _finding(
        guard,
        high,
        guard.margin,
        failed=low > guard.margin,
        told=f"{canary[0]:.0f} of {canary[1]:.0f} requests, stable {stable[0]:.0f} of "
        f"{stable[1]:.0f}: {low:+.3%} to {high:+.3%} a request, at most {guard.margin:+.3%} "
        "allowed",
    )


def _finding(
    guard: Guard, high: float, threshold: float, *, failed: bool, told: str
) -> GuardFinding:
    check = Check(
        name=f"guard_{guard.name}",
        number=high,
        threshold=threshold,
        passed=high < threshold,
        detail=f"{guard.name}: {told}",
    )
    return GuardFinding(failed=failed, check=check)


def _total(blocks: Sequence[Pair]) -> tuple[float, float]:
    return sum(events or 0.0 for events, _ in blocks), sum(requests for _, requests in blocks)


def _excess(blocks: Sequence[Pair]) -> float:
    """How much more the blocks' counts vary than independent events would; at least 1."""
    events, requests = _total(blocks)
    used = [(count or 0.0, n) for count, n in blocks if n > 0]
    if len(used) < 2 or not events:
        return 1.0
    rate = events / requests
    chi2 = sum((count - rate * n) ** 2 / (rate * n) for count, n in used)
    return max(1.0, chi2 / (len(used) - 1))


def rate_ends(
    events: float, exposure: float, *, alpha: float, prior_mean: float
) -> tuple[float, float]:
    """Ends of a Poisson rate that hold at all times with probability 1 - alpha.

    The set of rates that a Gamma(1/2) mixture around `prior_mean` does not beat by 1 / alpha
    (Ville's inequality; Robbins 1970).
    """
    scale = _PRIOR / prior_mean
    marginal = (
        _PRIOR * math.log(scale)
        - (_PRIOR + events) * math.log(scale + exposure)
        + math.lgamma(_PRIOR + events)
        - math.lgamma(_PRIOR)
    )
    bound = -math.log(alpha)

    def beaten(rate: float) -> bool:
        likelihood = (events * math.log(rate) if events else 0.0) - rate * exposure
        return marginal - likelihood >= bound

    middle = events / exposure
    outside = middle + (bound + 1) / exposure
    while not beaten(outside):
        outside *= 2
    low = 0.0 if events == 0 else _edge(beaten, outside=math.ulp(0), inside=middle)
    return low, _edge(beaten, outside=outside, inside=middle)


def _edge(beaten: Callable[[float], bool], *, outside: float, inside: float) -> float:
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        if beaten(middle):
            outside = middle
        else:
            inside = middle
    return outside
