"""What must not get worse while the tokens get faster: failures, latencies, single cells."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moe_serve.canary.analysis.verdict import Check
from moe_serve.canary.benchmarks.pairing import Floats, Paired
from moe_serve.canary.benchmarks.results import Arm, BenchmarkRun
from moe_serve.canary.benchmarks.rules import Rules
from moe_serve.canary.benchmarks.spread import spread
from moe_serve.canary.quality.result import NoQuality, Outcome, QualityResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """A check that may do more than withhold a promotion.

    `harm` rolls back; `invalid` says that the comparison cannot be trusted.
    """

    check: Check
    harm: bool = False
    invalid: bool = False


def failed_requests(layout: Paired) -> tuple[Guard, ...]:
    """One guard an arm: no request may fail.

    A rate over the requests that were left is no rate of the same work, so a failing stable arm
    makes the comparison invalid; a canary that fails where the stable arm does not is harm.
    """
    failed = {arm: _sum_failed(layout, arm) for arm in Arm}
    stable_failed = bool(failed[Arm.STABLE][0])
    return tuple(
        Guard(
            check=Check(
                name=f"failed_requests_{arm.value}",
                number=None if unknown else float(count),
                threshold=0.0,
                passed=count == 0 and not unknown,
                detail=_failed_text(arm, count, unknown),
            ),
            harm=arm is Arm.CANARY and count > 0,
            invalid=count > 0 and stable_failed,
        )
        for arm, (count, unknown) in failed.items()
    )


def _sum_failed(layout: Paired, arm: Arm) -> tuple[int, int]:
    """Failed requests of an arm, and the runs that do not tell."""
    runs = [run for (of, _, _), run in layout.runs.items() if of is arm]
    return sum(run.failed or 0 for run in runs), sum(run.failed is None for run in runs)


def _failed_text(arm: Arm, count: int, unknown: int) -> str:
    if count:
        return f"{count} requests of the {arm.value} arm failed"
    if unknown:
        return f"{unknown} runs of the {arm.value} arm do not say how many requests failed"
    return f"no request of the {arm.value} arm failed"


_LATENCIES: Mapping[str, Callable[[BenchmarkRun], float | None]] = {
    "ttft_p99": lambda run: run.latencies.ttft_p99,
    "tpot_p99": lambda run: run.latencies.tpot_p99,
}


def latencies(layout: Paired, rules: Rules) -> tuple[Guard, ...]:
    """TTFT and TPOT p99: shown to be no more than the limit worse, as a geomean over cells.

    Non-inferiority: only an upper end below the limit passes; a lower end above it is harm.
    """
    return tuple(_latency(name, layout.log_ratios(of), rules) for name, of in _LATENCIES.items())


def _latency(name: str, ratios: Floats | None, rules: Rules) -> Guard:
    limit = math.log1p(rules.latency_harm)
    if ratios is None:
        check = Check(
            name=name, number=None, threshold=limit, passed=False, detail=f"no {name} in some run"
        )
        return Guard(check=check)
    found = spread([float(row) for row in ratios.mean(axis=1)], rules.policy.confidence)
    passed = found.hi is not None and found.hi <= limit
    harm = found.lo is not None and found.lo > limit
    allowed = f"{rules.latency_harm:+.0%}"
    text = {
        (True, False): f"{name} is no more than {allowed} worse",
        (False, True): f"harm: {name} is more than {allowed} worse",
    }.get((passed, harm), f"{name} is not shown to be at most {allowed} worse")
    return Guard(
        check=Check(name=name, number=found.hi, threshold=limit, passed=passed, detail=text),
        harm=harm,
    )


def cells_not_worse(layout: Paired, ratios: Floats, rules: Rules) -> Check:
    """No single cell is clearly slower; the level is split over the cells (Bonferroni)."""
    confidence = 1 - (1 - rules.policy.confidence) / len(layout.cells)
    found = [spread([float(v) for v in column], confidence) for column in np.transpose(ratios)]
    uppers = [cell.hi for cell in found if cell.hi is not None]
    worse = [
        f"{cell} ({math.expm1(one.theta):+.1%})"
        for cell, one in zip(layout.cells, found, strict=True)
        if one.hi is not None and one.hi < rules.policy.log_harm
    ]
    detail = f"clearly slower: {', '.join(worse)}" if worse else "no cell is clearly slower"
    if not uppers:
        detail = "one pair shows no spread, so no cell can be cleared"
    return Check(
        name="cells",
        number=min(uppers, default=None),
        threshold=rules.policy.log_harm,
        passed=bool(uppers) and not worse,
        detail=detail,
    )


def same_answers(quality: QualityResult | NoQuality) -> Check:
    """Whether the answers were shown to be the same; no data does not pass."""
    return Check(
        name="same_answers",
        number=None,
        threshold=None,
        passed=isinstance(quality, QualityResult) and quality.outcome is Outcome.PASSED,
        detail=quality.reason,
    )
