"""The verdict on benchmark pairs with its ratios, the claim, and their text and JSON."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.analysis.validity import EvidenceGrade
from moe_serve.analysis.verdict import Check, Severity, Verdict
from moe_serve.benchmark.protocol import RunVariation
from moe_serve.benchmark.results import BenchmarkCell, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeResult:
    """The geometric mean over one shape's concurrencies."""

    shape: Shape
    spread: RunVariation


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkCellResult:
    """One cell over all pairs."""

    cell: BenchmarkCell
    spread: RunVariation


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Ratios of tokens/s per GPU, canary over stable, each with its interval over pairs.

    `across_cells` is the interval over cells instead, as if they were a sample of all cells: all
    that a published table with one number per cell allows. It has no repeatability in it and
    decides nothing.
    """

    overall: RunVariation
    shapes: tuple[ShapeResult, ...]
    cells: tuple[BenchmarkCellResult, ...]
    across_cells: RunVariation

    @property
    def shown(self) -> RunVariation:
        """The interval to show: over pairs, or over cells where each arm has one run."""
        return self.across_cells if self.overall.lo is None else self.overall

    def text(self) -> str:
        """One clause for the verdict's reason."""
        found = self.shown
        gain = f"tokens/s per GPU {found.ratio - 1:+.1%}"
        if found.lo is None or found.hi is None:
            return f"{gain} (one run of each arm: no interval)"
        what = "cells" if found is self.across_cells else "pairs"
        ends = f"{math.expm1(found.lo):+.1%} to {math.expm1(found.hi):+.1%}"
        return f"{gain} ({ends} over {found.count} {what})"

    def rows(self) -> list[str]:
        """The ratios as lines of a table."""
        rows = [(str(result.cell), result.spread) for result in self.cells]
        rows += [(f"geomean {result.shape}", result.spread) for result in self.shapes]
        rows += [("geomean", self.overall), ("across cells", self.across_cells)]
        return [f"{name:<16} {one.ratio:.3f}  {one.ends()}" for name, one in rows]

    def to_json(self) -> dict[str, object]:
        """The verdict's `speed`."""
        return {
            "overall": self.overall.to_json(),
            "shapes": [{"shape": str(s.shape), **s.spread.to_json()} for s in self.shapes],
            "cells": [_cell_json(result) for result in self.cells],
            "across_cells": self.across_cells.to_json(),
        }


def _cell_json(result: BenchmarkCellResult) -> dict[str, object]:
    cell = result.cell
    return {
        "isl": cell.shape.input_tokens,
        "osl": cell.shape.output_tokens,
        "conc": cell.concurrency,
        **result.spread.to_json(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether a published ratio lies inside the shown interval; None if there is none."""

    ratio: float
    inside: bool | None
    detail: str

    def to_json(self) -> dict[str, object]:
        """The verdict's `claim`."""
        return {"ratio": self.ratio, "inside": self.inside, "detail": self.detail}


def claim_of(ratio: float, speed: Speed | None) -> Claim:
    """The claim beside what was measured; it decides nothing."""
    if speed is None or speed.shown.lo is None or speed.shown.hi is None:
        return Claim(ratio=ratio, inside=None, detail="there is no interval to compare it with")
    found, value = speed.shown, math.log(ratio)
    inside = speed.shown.lo <= value <= speed.shown.hi
    where = "inside" if inside else ("above" if value > speed.shown.hi else "below")
    over = f"{found.count} pairs"
    if found is speed.across_cells:
        over = f"{found.count} cells only: how far a run would repeat is not known"
    return Claim(ratio=ratio, inside=inside, detail=f"{where} {found.ends()}, over the {over}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkJudgement:
    """A verdict with its evidence; `speed` is None when the runs cannot be paired."""

    verdict: Verdict
    reason: str
    speed: Speed | None
    claim: Claim
    planned_pairs: int
    evidence: EvidenceGrade
    quality: Mapping[str, object]
    checks: tuple[Check, ...]

    def to_text(self) -> str:
        """The verdict and its reason, then the ratios, the claim and the checks, as text."""
        lines = [f"{self.verdict.value}: {self.reason}", ""]
        if self.speed is not None:
            lines += [*self.speed.rows(), ""]
        lines += [f"claim {self.claim.ratio:g}: {self.claim.detail}"]
        lines += [f"evidence {self.evidence.value}: {self.evidence.meaning}", ""]
        lines += [f"{_mark(check)}  {check.name}: {check.detail}" for check in self.checks]
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The body of `canary judge --output json`; log ratios as in every verdict.

        `lo` and `hi` are over pairs, and null where there is one run each.
        """
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
            "evidence": self.evidence.value,
            "checks": [check.to_json() for check in self.checks],
        }


def _mark(check: Check) -> str:
    if check.number is None and check.passed and check.severity is Severity.WARNING:
        return "?   "
    return "ok  " if check.passed else "FAIL"
