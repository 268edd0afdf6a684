"""The judge's table: per block and cell the log ratio of the arms' rates, absent ones as NaN."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_serve.canary.analysis.series import Cell
from moe_serve.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTable:
    """Blocks that are paired in time, oldest first.

    `log_ratios` has the shape (blocks, cells): log(canary's rate) - log(stable's), NaN where one
    arm ran the cell too rarely. `starts` are seconds; `busy` the stable arm's busy seconds a cell.
    """

    cells: tuple[Cell, ...]
    starts: Floats
    log_ratios: Floats
    busy: Floats

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        shape = (len(self.starts), len(self.cells))
        if self.log_ratios.shape != shape or self.busy.shape != shape[1:]:
            raise UsageError(f"a table of {shape} blocks and cells has other parts")
        if np.isinf(self.log_ratios).any():
            raise UsageError("a log ratio is infinite: a rate of 0 is no rate")

    def shares(self) -> dict[Cell, float]:
        """Each cell's share of the stable arm's busy seconds; they sum to 1, or there are none."""
        whole = float(self.busy.sum())
        pairs = zip(self.cells, self.busy.tolist(), strict=True)
        return {cell: busy / whole for cell, busy in pairs if busy > 0} if whole > 0 else {}


def pooled(log_ratios: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The mix's log speed-up over all blocks, and each block's influence around it.

    `log_ratios` (..., blocks, cells) with NaN for absent ones, `weights` (cells,) with the sum 1:
    shares of the stable arm's time. The estimate is -log sum(w exp(-theta)): by how much the same
    work gets done sooner. Returns (...), and (..., blocks) whose mean is the estimate.
    Every cell must be there at least once.
    """
    seen = ~np.isnan(log_ratios)
    counts = seen.sum(axis=-2, keepdims=True)
    cells = np.where(seen, log_ratios, 0.0).sum(axis=-2, keepdims=True) / counts
    times = weights * np.exp(-cells)
    whole = times.sum(axis=-1, keepdims=True)
    theta = -np.log(whole[..., 0])
    blocks = log_ratios.shape[-2]
    pull = np.where(seen, (log_ratios - cells) * (blocks / counts), 0.0)
    influence = (times / whole * pull).sum(axis=-1)
    return theta[..., 0], theta + influence


def equal_weights(cells: int) -> Floats:
    """The published claim's weights: every cell counts the same."""
    return np.full(cells, 1 / cells)


def as_array(cells: tuple[Cell, ...], weights: Mapping[Cell, float]) -> Floats:
    """Weights in the cells' order, 0 where there is none."""
    found = np.array([weights.get(cell, 0.0) for cell in cells])
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise UsageError("weights must be finite and not below 0")
    return found


def amdahl(kernel_gain: float, share: float) -> float:
    """The step's log gain that a kernel's log gain explains, its share of the step time given."""
    return -math.log(1 - share + share * math.exp(-kernel_gain))
