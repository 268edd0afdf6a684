"""What the estimator says: a speed-up with its interval, or why there is none.

All of `theta`, `lo`, `hi` are natural-log ratios of rates, canary over stable: 0.0 is equal speed,
above 0 the canary is faster; `speedup` is exp(theta).
"""

import math
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.series import Cell, CellKind
from moe_serve.analysis.table import Estimand, of_the_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEstimate:
    """One cell's log ratio; a cell whose layer is None may be pooled over layers.

    `weight` is its share of the stable arm's busy seconds. The ends hold for all cells and looks
    together, so they are wider than the whole estimate's.
    """

    cell: Cell
    weight: float
    theta: float
    lo: float
    hi: float
    blocks: int

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
            "mode": self.cell.mode,
            "weight": self.weight,
            "theta": self.theta,
            # Too few blocks have no ends, and JSON has no infinity.
            "lo": self.lo if math.isfinite(self.lo) else None,
            "hi": self.hi if math.isfinite(self.hi) else None,
            "speedup": self.speedup,
            "blocks": self.blocks,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UncoveredCell:
    """A cell with weight but too few blocks to say anything about it."""

    cell: Cell
    weight: float
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """One block's log ratio, and the estimate with its ends after it.

    The ends hold over all looks at once: looking at each of them spoils nothing. None before the
    first look.
    """

    start_seconds: float
    theta: float | None
    running_theta: float | None
    running_lo: float | None
    running_hi: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The weighted log ratio of rates over the covered cells.

    `lo` and `hi` miss the truth at any look with chances of at most `alpha_low` and `alpha_high`.
    `covered_weight` is the share of the stable arm's busy seconds that it speaks for; what lacks
    is in `uncovered`. `buckets` pools `cells` over layers. `in_run_sd` is what a block's noise is
    in this run, `block_sd` what the interval uses; `offset_sd` how far equal arms lie apart for
    good, known with `offset_freedom` degrees of freedom. All of them are log SDs.
    """

    kind: CellKind
    estimand: Estimand
    theta: float
    lo: float
    hi: float
    alpha_low: float
    alpha_high: float
    blocks: int
    in_run_sd: float
    block_sd: float
    autocorrelation: float
    offset_sd: float
    offset_freedom: float
    covered_weight: float
    cells: tuple[CellEstimate, ...]
    buckets: tuple[CellEstimate, ...]
    uncovered: tuple[UncoveredCell, ...]
    series: tuple[SeriesPoint, ...]

    @property
    def speedup(self) -> float:
        """Ratio of rates, canary over stable."""
        return math.exp(self.theta)

    @property
    def lower_bound_all_traffic(self) -> float:
        """The lower end for all of the weight, what is not covered taken as no gain."""
        if not self.uncovered or self.estimand is not Estimand.MIX:
            return self.lo
        return float(of_the_whole(np.float64(self.lo), np.float64(self.covered_weight)))

    @property
    def confidence(self) -> float:
        """The chance that the truth lies between the ends at every look."""
        return 1 - self.alpha_low - self.alpha_high


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEstimate:
    """No data is a value of its own: never zero, never a pass."""

    kind: CellKind
    reason: str
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """Every estimate of one comparison.

    `equal` weights all cells alike, as the published claim does; it is reported and decides
    nothing. `mixed` is the `primary_kind`'s rate of batches with prefill: a loss there forbids a
    promotion, a gain earns none.
    """

    primary_kind: CellKind
    step: Estimate | NoEstimate
    kernel: Estimate | NoEstimate
    equal: Estimate | NoEstimate
    mixed: Estimate | NoEstimate

    @property
    def primary(self) -> Estimate | NoEstimate:
        """The rate that decides."""
        return self.step if self.primary_kind is CellKind.STEP else self.kernel
