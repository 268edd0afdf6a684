"""What the estimator says: a speed-up with its interval, or why there is none.

All of `theta`, `lo`, `hi` are natural-log ratios of rates, canary over stable: 0.0 is equal speed,
above 0 the canary is faster; `speedup` is exp(theta).
"""

import math
from dataclasses import dataclass

from moe_serve.canary.analysis.series import Cell, CellKind


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEstimate:
    """One cell's log ratio; a cell whose layer is None may be pooled over layers.

    `weight` is its share of the stable arm's busy seconds.
    """

    cell: Cell
    weight: float
    theta: float
    lo: float
    hi: float
    pairs: int

    @property
    def speedup(self) -> float:
        """Ratio of rates: 1.08 means that the canary does 8 % more in the same busy time."""
        return math.exp(self.theta)

    def to_json(self) -> dict[str, object]:
        """One entry of the verdict's `strata`."""
        return {
            "kind": self.cell.kind.value,
            "layer": self.cell.layer,
            "bucket": self.cell.bucket,
            "weight": self.weight,
            "theta": self.theta,
            "lo": self.lo,
            "hi": self.hi,
            "speedup": self.speedup,
            "pairs": self.pairs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredCell:
    """A cell with weight but too few pairs to say anything about it."""

    cell: Cell
    weight: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """One pair's log ratio, and the interval of all pairs up to it.

    The running interval is for the eye: the decision looks once, at the end. It is None until
    there are enough pairs.
    """

    start_seconds: float
    theta: float
    running_theta: float | None
    running_lo: float | None
    running_hi: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The weighted log ratio of rates over the covered cells.

    `covered_weight` is the share of the stable arm's busy seconds that it speaks for; what lacks
    is in `uncovered`. `buckets` pools `cells` over layers. `effective_pairs` is what the pairs are
    worth after `autocorrelation`.
    """

    kind: CellKind
    confidence: float
    theta: float
    lo: float
    hi: float
    pairs: int
    effective_pairs: float
    autocorrelation: float
    covered_weight: float
    cells: tuple[CellEstimate, ...]
    buckets: tuple[CellEstimate, ...]
    uncovered: tuple[UncoveredCell, ...]
    series: tuple[SeriesPoint, ...]

    @property
    def speedup(self) -> float:
        """Ratio of rates, canary over stable."""
        return math.exp(self.theta)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEstimate:
    """No data is a value of its own: never zero, never a pass."""

    kind: CellKind
    reason: str
    pairs: int
