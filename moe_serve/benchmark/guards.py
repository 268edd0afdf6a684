"""Checks beside the speed: failed requests, latencies, single cells, order, the client."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.verdict import Check, Severity
from moe_serve.benchmark.pairing import Floats, PairedRuns
from moe_serve.benchmark.protocol import Rules, spread
from moe_serve.benchmark.results import BenchmarkArm, BenchmarkRun

_Value = Callable[[BenchmarkRun], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkGuard:
    """A check with its consequence beyond withholding a promotion.

    `harm` rolls back once all pairs are measured, with `now` at once; `invalid` makes the verdict
    INVALID.
    """

    check: Check
    harm: bool = False
    now: bool = False
    invalid: bool = False


def failed_requests(layout: PairedRuns) -> tuple[BenchmarkGuard, ...]:
    """One guard per arm: no request may fail.

    Failed requests make the arms' work unequal, so failures of the stable arm make the comparison
    invalid; failures of the canary alone are harm.
    """
    failed = {arm: _sum_failed(layout, arm) for arm in BenchmarkArm}
    stable_failed = bool(failed[BenchmarkArm.STABLE][0])
    return tuple(
        BenchmarkGuard(
            check=Check(
                name=f"failed_requests_{arm.value}",
                number=None if unknown else float(count),
                threshold=0.0,
                passed=count == 0 and not unknown,
                detail=_failed_text(arm, count, unknown),
            ),
            harm=arm is BenchmarkArm.CANARY and count > 0,
            now=True,
            invalid=count > 0 and stable_failed,
        )
        for arm, (count, unknown) in failed.items()
    )


def _sum_failed(layout: PairedRuns, arm: BenchmarkArm) -> tuple[int, int]:
    """Failed requests of an arm, and the number of runs without that figure."""
    runs = [run for (of, _, _), run in layout.runs.items() if of is arm]
    return sum(run.failed or 0 for run in runs), sum(run.failed is None for run in runs)


def _failed_text(arm: BenchmarkArm, count: int, unknown: int) -> str:
    if count:
        return f"{count} requests of the {arm.value} arm failed"
    if unknown:
        return f"{unknown} runs of the {arm.value} arm have no number of failed requests"
    return f"no request of the {arm.value} arm failed"


_TTFT: tuple[str, _Value] = ("ttft_p99", lambda run: run.latencies.ttft_p99)
_ITL: tuple[str, _Value] = ("itl_p99", lambda run: run.latencies.itl_p99)
# Used instead of it where the results have only each request's mean.
_TPOT: tuple[str, _Value] = ("tpot_p99", lambda run: run.latencies.tpot_p99)


def latencies(layout: PairedRuns, rules: Rules) -> tuple[BenchmarkGuard, ...]:
    """Guards on p99 to the first token and between tokens, as a geometric mean over cells.

    Non-inferiority: an upper end below the limit passes, a lower end above it is harm.
    """
    between = _ITL if layout.log_ratios(_ITL[1]) is not None else _TPOT
    return tuple(
        _latency(name, layout.log_ratios(value), rules) for name, value in (_TTFT, between)
    )


def _latency(name: str, ratios: Floats | None, rules: Rules) -> BenchmarkGuard:
    limit = math.log1p(rules.latency_harm)
    if ratios is None:
        check = Check(
            name=name, number=None, threshold=limit, passed=False, detail=f"no {name} in some run"
        )
        return BenchmarkGuard(check=check)
    found = spread([float(row) for row in ratios.mean(axis=1)], rules.side)
    low, high = found.low(rules.rollback_side), found.hi
    passed = high is not None and high <= limit
    harm = low is not None and low > limit
    allowed, measured = f"{rules.latency_harm:.0%}", f"{math.expm1(found.theta):+.1%}"
    text = f"{name} is not shown to be at most {allowed} worse (measured {measured})"
    if passed:
        text = f"{name} is at most {allowed} worse ({measured})"
    if harm:
        text = f"harm: {name} is more than {allowed} worse ({measured})"
    return BenchmarkGuard(
        check=Check(name=name, number=high, threshold=limit, passed=passed, detail=text),
        harm=harm,
    )


def order(layout: PairedRuns) -> Check:
    """Whether each arm ran first in half of the pairs, so that order does not look like speed."""
    first = layout.first_arms()
    if first is None:
        return Check(
            name="order", number=None, threshold=1.0, passed=False,
            detail="the runs have no times of one clock, so it is unknown whether the "
            "arms took turns",
        )  # fmt: skip
    uneven = abs(2 * first.count(BenchmarkArm.STABLE) - len(first))
    return Check(
        name="order",
        number=float(uneven),
        threshold=1.0,
        passed=uneven <= 1,
        detail=f"the stable arm began {first.count(BenchmarkArm.STABLE)} of {len(first)} pairs"
        + ("" if uneven <= 1 else ": alternate which arm begins"),
    )


def client_pace(layout: PairedRuns, rules: Rules) -> Check:
    """Whether the client left enough of its core idle not to limit the rate."""
    shares = [run.client_busy for run in layout.runs.values() if run.client_busy is not None]
    worst = max(shares, default=None)
    if worst is None:
        return Check(
            name="client_pace", number=None, threshold=rules.max_client_busy, passed=True,
            severity=Severity.WARNING, detail="not checked: the results have no "
            "client_busy",
        )  # fmt: skip
    passed = worst <= rules.max_client_busy
    return Check(
        name="client_pace",
        number=worst,
        threshold=rules.max_client_busy,
        passed=passed,
        detail=f"the client was busy for {worst:.0%} of a core at most"
        + ("" if passed else ": it may have limited the rate; lower the concurrency"),
    )


def cells_not_worse(layout: PairedRuns, ratios: Floats, rules: Rules) -> Check:
    """Whether no single cell is clearly slower; the level is split over cells (Bonferroni)."""
    limit = math.log1p(-rules.policy.cell_harm)
    side = rules.rollback_side / len(layout.cells)
    found = [spread([float(v) for v in column], side) for column in np.transpose(ratios)]
    uppers = [cell.hi for cell in found if cell.hi is not None]
    worse = [
        f"{cell} ({math.expm1(one.theta):+.1%})"
        for cell, one in zip(layout.cells, found, strict=True)
        if one.hi is not None and one.hi < limit
    ]
    detail = f"clearly slower: {', '.join(worse)}" if worse else "no cell is clearly slower"
    if not uppers:
        detail = "one pair shows no spread, so no cell can be cleared"
    return Check(
        name="cells",
        number=min(uppers, default=None),
        threshold=limit,
        passed=bool(uppers) and not worse,
        detail=detail,
    )
