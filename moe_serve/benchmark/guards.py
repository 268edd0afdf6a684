"""What must not get worse while the tokens get faster: failures, latencies, single cells."""

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
    """A check that may do more than withhold a promotion.

    `harm` rolls back, `now` even before all pairs are there; `invalid` says that the comparison
    cannot be trusted.
    """

    check: Check
    harm: bool = False
    now: bool = False
    invalid: bool = False


def failed_requests(layout: PairedRuns) -> tuple[BenchmarkGuard, ...]:
    """One guard an arm: no request may fail.

    A rate over the requests that were left is no rate of the same work, so a failing stable arm
    makes the comparison invalid; a canary that fails where the stable arm does not is harm.
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
    """Failed requests of an arm, and the runs that do not tell."""
    runs = [run for (of, _, _), run in layout.runs.items() if of is arm]
    return sum(run.failed or 0 for run in runs), sum(run.failed is None for run in runs)


def _failed_text(arm: BenchmarkArm, count: int, unknown: int) -> str:
    if count:
        return f"{count} requests of the {arm.value} arm failed"
    if unknown:
        return f"{unknown} runs of the {arm.value} arm do not say how many requests failed"
    return f"no request of the {arm.value} arm failed"


_TTFT: tuple[str, _Value] = ("ttft_p99", lambda run: run.latencies.ttft_p99)
_ITL: tuple[str, _Value] = ("itl_p99", lambda run: run.latencies.itl_p99)
# What stands in for it in results that know only a request's mean.
_TPOT: tuple[str, _Value] = ("tpot_p99", lambda run: run.latencies.tpot_p99)


def latencies(layout: PairedRuns, rules: Rules) -> tuple[BenchmarkGuard, ...]:
    """p99 of the first token and between tokens: at most the limit worse, as a geomean over cells.

    Non-inferiority: only an upper end below the limit passes; a lower end above it is harm.
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
    """Each arm must begin as many pairs as the other, or what comes second always looks alike."""
    first = layout.first_arms()
    if first is None:
        return Check(
            name="order", number=None, threshold=1.0, passed=False,
            detail="the results do not say when each run took place, so it is unknown whether the "
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
    """A client that uses up its core measures itself."""
    shares = [run.client_busy for run in layout.runs.values() if run.client_busy is not None]
    worst = max(shares, default=None)
    if worst is None:
        return Check(
            name="client_pace", number=None, threshold=rules.max_client_busy, passed=True,
            severity=Severity.WARNING, detail="not checked: the results do not say how busy the "
            "client was",
        )  # fmt: skip
    passed = worst <= rules.max_client_busy
    return Check(
        name="client_pace",
        number=worst,
        threshold=rules.max_client_busy,
        passed=passed,
        detail=f"the client was busy for {worst:.0%} of a core at most"
        + ("" if passed else ": it may have set the pace; lower the concurrency"),
    )


def cells_not_worse(layout: PairedRuns, ratios: Floats, rules: Rules) -> Check:
    """No single cell is clearly slower; the level is split over the cells (Bonferroni)."""
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
