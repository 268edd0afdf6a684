"""A judgement as text for a terminal."""

import math

from moe_serve.canary.benchmarks.judgement import BenchmarkJudgement, Speed
from moe_serve.canary.benchmarks.spread import Spread


def to_text(judgement: BenchmarkJudgement) -> str:
    """Verdict and reason first, then the ratios, the claim and the checks."""
    lines = [f"{judgement.verdict.value}: {judgement.reason}", ""]
    if judgement.speed is not None:
        lines += [*_ratios(judgement.speed), ""]
    lines += [f"claim {judgement.claim.ratio:g}: {judgement.claim.detail}", ""]
    lines += [
        f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.detail}"
        for check in judgement.checks
    ]
    return "\n".join(lines)


def _ratios(speed: Speed) -> list[str]:
    rows = [(str(result.cell), result.spread) for result in speed.cells]
    rows += [(f"geomean {result.shape}", result.spread) for result in speed.shapes]
    rows += [("geomean", speed.overall), ("(cells apart)", speed.across_cells)]
    return [f"{name:<16} {one.ratio:.3f}  {_ends(one)}" for name, one in rows]


def _ends(one: Spread) -> str:
    if one.lo is None or one.hi is None:
        return "no interval"
    return f"{math.exp(one.lo):.3f} to {math.exp(one.hi):.3f}"
