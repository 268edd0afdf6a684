"""Step 2 of a comparison: windows become a table of blocks, with one log ratio per block and cell.

Beside it are the formulas that pool a table's cells into one log ratio.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from moe_serve.analysis.series import MIXED, Cell, Floats
from moe_serve.analysis.windows import BlockingScheme, PairedWindows
from moe_serve.errors import UsageError

# Blocks that a cell needs before anything is said about it.
MIN_BLOCKS = 3


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


def block_table(windows: PairedWindows, blocking: BlockingScheme) -> BlockTable:
    """The log ratios of the arms' rates per block and cell, from windows that both arms have.

    A decode cell that is not exact gets its busy time and no ratio: it has a weight and is not
    covered. A mixed cell gets ratios, since no batch size describes mixed batches anyway.
    """
    stable, canary = windows.stable, windows.canary
    both = (stable.runs > 0) & (canary.runs > 0) & (stable.busy > 0) & (canary.busy > 0)
    cells = windows.cells
    blocks = len(both) // blocking.windows_per_block
    shape = (blocks, blocking.windows_per_block, len(cells))

    def per_block(values: Floats) -> Floats:
        summed: Floats = np.where(both, values, 0.0).reshape(shape).sum(axis=1)
        return summed

    runs = per_block(stable.runs), per_block(canary.runs)
    busy = per_block(stable.busy), per_block(canary.busy)
    comparable = np.array([cell.exact or cell.phase == MIXED for cell in cells], dtype=bool)
    enough = (np.minimum(*runs) >= max(1, blocking.min_count)) & comparable
    log_rates = [
        np.log(np.divide(r, b, out=np.ones_like(r), where=enough))
        for r, b in zip(runs, busy, strict=True)
    ]
    return BlockTable(
        cells=cells,
        starts=windows.start + blocking.block_seconds * np.arange(blocks, dtype=np.float64),
        log_ratios=np.where(enough, log_rates[1] - log_rates[0], math.nan),
        busy=stable.busy.sum(axis=0),
    )


class Estimand(StrEnum):
    """What one number is to stand for all cells.

    `mix`: by how much the site's own mix gets done sooner, -log sum(w exp(-theta)), w each cell's
    share of the stable arm's busy time. `equal`: the mean of the cells' log ratios, which is how
    the claim was published (a geometric mean).
    """

    MIX = "mix"
    EQUAL = "equal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """`theta` (...,), `influence` (..., blocks) with theta as its mean, `covered` (...,) weight."""

    theta: Floats
    influence: Floats
    covered: Floats


def pooled(
    log_ratios: Floats, weights: Floats, estimand: Estimand, *, min_blocks: int = MIN_BLOCKS
) -> Pooled:
    """One log ratio for all cells, and each block's influence on it.

    `log_ratios` has the shape (..., blocks, cells), NaN where there is none; `weights` (cells,)
    sum to 1. A cell with fewer than `min_blocks` blocks is not covered: theta does not speak for
    it. Where no cell is covered, theta is NaN.
    """
    seen = ~np.isnan(log_ratios)
    counts = seen.sum(axis=-2)
    cells = np.where(seen, log_ratios, 0.0).sum(axis=-2) / np.maximum(counts, 1)
    own = np.where(counts >= min_blocks, weights, 0.0)
    covered = own.sum(axis=-1)
    own = own / np.where(covered > 0, covered, np.nan)[..., None]
    if estimand is Estimand.MIX:
        times = own * np.exp(-cells)
        whole = times.sum(axis=-1)
        theta, slopes = -np.log(whole), times / whole[..., None]
    else:
        theta, slopes = (own * cells).sum(axis=-1), own
    blocks = log_ratios.shape[-2]
    scale = slopes * blocks / np.maximum(counts, 1)
    pull = np.where(seen, log_ratios - cells[..., None, :], 0.0) * scale[..., None, :]
    return Pooled(theta=theta, influence=theta[..., None] + pull.sum(axis=-1), covered=covered)


def of_the_whole(log_ratio: Floats | np.float64, covered: Floats | np.float64) -> Floats:
    """A log ratio of the covered weight as one of all weight, the rest taken as neither faster nor
    slower: `mix`'s own sum, with a log ratio of 0 for what is not covered.
    """
    return np.asarray(-np.log(covered * np.exp(-log_ratio) + (1 - covered)))


def as_array(cells: tuple[Cell, ...], weights: Mapping[Cell, float]) -> Floats:
    """Weights in the cells' order, 0 where there is none."""
    found = np.array([weights.get(cell, 0.0) for cell in cells])
    if not (np.isfinite(found).all() and (found >= 0).all()):
        raise UsageError("weights must be finite and not below 0")
    return found


def moe_share(kernel: BlockTable, step: BlockTable, layers: int | None) -> float | None:
    """Share of the stable arm's step time that all fused-MoE calls take, at the sizes both know.

    Some of the `layers` are timed; they stand for all. None where nothing tells.
    """
    steps: dict[int, float] = {}
    for cell, busy in zip(step.cells, step.busy.tolist(), strict=True):
        if cell.exact and busy > 0:
            steps[cell.bucket] = steps.get(cell.bucket, 0.0) + busy
    timed: dict[int, dict[int | None, float]] = {}
    for cell, busy in zip(kernel.cells, kernel.busy.tolist(), strict=True):
        if cell.exact and busy > 0 and cell.bucket in steps:
            # A step has all modes of its batch size in it.
            of_layer = timed.setdefault(cell.bucket, {})
            of_layer[cell.layer] = of_layer.get(cell.layer, 0.0) + busy
    whole = sum(steps[bucket] for bucket in timed)
    if layers is None or whole <= 0:
        return None
    share = layers * sum(sum(found.values()) / len(found) for found in timed.values()) / whole
    return share if share <= 1 else None


def amdahl(kernel_gain: float, share: float) -> float:
    """The step's log gain that a kernel's log gain explains, its share of the step time given."""
    return -math.log(1 - share + share * math.exp(-kernel_gain))
