"""What the judge of benchmark pairs hands out: verdict, ratios, the claim, and their JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.canary.analysis.verdict import Check, Verdict
from moe_serve.canary.benchmarks.results import Cell, Shape
from moe_serve.canary.benchmarks.spread import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeResult:
    """The geomean over one shape's concurrencies."""

    shape: Shape
    spread: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class CellResult:
    """One cell over all pairs."""

    cell: Cell
    spread: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Ratios of tokens/s per GPU, canary over stable, each with its interval over pairs.

    `across_cells` is another question: how far the cells lie apart, as if they were a sample of
    all cells. It knows nothing of repeatability and decides nothing; it is what a published table
    with one number a cell allows.
    """

    overall: Spread
    shapes: tuple[ShapeResult, ...]
    cells: tuple[CellResult, ...]
    across_cells: Spread

    def text(self) -> str:
        """One clause for the verdict's reason."""
        whole = self.overall
        if whole.lo is None or whole.hi is None:
            return f"tokens/s per GPU {whole.ratio - 1:+.1%} (one pair: no interval)"
        ends = f"{math.expm1(whole.lo):+.1%} to {math.expm1(whole.hi):+.1%}"
        return f"tokens/s per GPU {whole.ratio - 1:+.1%} ({ends}, {whole.count} pairs)"

    def to_json(self) -> dict[str, object]:
        """The verdict's `speed`."""
        return {
            "overall": self.overall.to_json(),
            "shapes": [{"shape": str(s.shape), **s.spread.to_json()} for s in self.shapes],
            "cells": [_cell_json(result) for result in self.cells],
            "across_cells": self.across_cells.to_json(),
        }


def _cell_json(result: CellResult) -> dict[str, object]:
    cell = result.cell
    return {
        "isl": cell.shape.input_tokens,
        "osl": cell.shape.output_tokens,
        "conc": cell.concurrency,
        **result.spread.to_json(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether a published ratio lies inside the interval over pairs; None if there is none."""

    ratio: float
    inside: bool | None
    detail: str

    def to_json(self) -> dict[str, object]:
        """The verdict's `claim`."""
        return {"ratio": self.ratio, "inside": self.inside, "detail": self.detail}


def claim_of(ratio: float, found: Spread | None) -> Claim:
    """The claim beside what was measured; it decides nothing."""
    if found is None or found.lo is None or found.hi is None:
        return Claim(ratio=ratio, inside=None, detail="no interval over pairs to compare it with")
    inside = found.lo <= math.log(ratio) <= found.hi
    where = "inside" if inside else ("above" if math.log(ratio) > found.hi else "below")
    return Claim(ratio=ratio, inside=inside, detail=f"{where} the interval over pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkJudgement:
    """A verdict with all that it rests on; `speed` is None when the runs are no pairs."""

    verdict: Verdict
    reason: str
    speed: Speed | None
    claim: Claim
    planned_pairs: int
    quality: Mapping[str, object]
    checks: tuple[Check, ...]

    def to_json(self) -> dict[str, object]:
        """The body of `canary judge --output json`; log ratios as in every verdict."""
        whole = self.speed.overall if self.speed else None
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "theta": whole.theta if whole else None,
            "lo": whole.lo if whole else None,
            "hi": whole.hi if whole else None,
            "speedup": whole.ratio if whole else None,
            "claim": self.claim.to_json(),
            "pairs": whole.count if whole else 0,
            "planned_pairs": self.planned_pairs,
            "speed": self.speed.to_json() if self.speed else None,
            "quality": dict(self.quality),
            "checks": [check.to_json() for check in self.checks],
        }
