"""From paired blocks to one number per cell and crossover pair: the log ratio of the arms' rates.

Two adjacent blocks with swapped cores make one pair. Their mean holds no trace of the cores' own
speed, which enters the two blocks with opposite signs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.series import Cell, CellKind, CellTotal, PairedBlock
from moe_serve.analysis.table import BlockTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One crossover pair: per cell the log ratio canary / stable of counts per busy second."""

    start_seconds: float
    log_ratios: Mapping[Cell, float]


def pairs(blocks: Sequence[PairedBlock], kind: CellKind, min_count: int) -> tuple[Pair, ...]:
    """All crossover pairs: whole, directly following blocks with opposite placement.

    A cell belongs to a pair only if both blocks have it: half a crossover would let the core's
    speed through. A block whose neighbour is void stays alone and is left out.
    """
    ordered = sorted(blocks, key=lambda block: block.index)
    found: list[Pair] = []
    position = 0
    while position + 1 < len(ordered):
        first, second = ordered[position], ordered[position + 1]
        if not _crossover(first, second):
            position += 1
            continue
        found.append(_pair(first, second, kind, min_count))
        position += 2
    return tuple(found)


def _crossover(first: PairedBlock, second: PairedBlock) -> bool:
    return (
        first.void_reason is None
        and second.void_reason is None
        and second.index == first.index + 1
        and second.placement is not first.placement
    )


def _pair(first: PairedBlock, second: PairedBlock, kind: CellKind, min_count: int) -> Pair:
    one, other = (log_ratios(block, kind, min_count) for block in (first, second))
    return Pair(
        start_seconds=first.start_seconds,
        log_ratios={cell: (one[cell] + other[cell]) / 2 for cell in one if cell in other},
    )


def log_ratios(block: PairedBlock, kind: CellKind, min_count: int) -> dict[Cell, float]:
    """Per cell log(canary's rate) - log(stable's); cells that either arm ran too rarely are out."""
    if block.stable is None or block.canary is None:
        return {}
    stable, canary = block.stable.totals, block.canary.totals
    return {
        cell: _log_rate(canary[cell]) - _log_rate(stable[cell])
        for cell in stable
        if cell.kind is kind
        and cell in canary
        and min(_usable(stable[cell]), _usable(canary[cell])) >= max(1, min_count)
    }


def _usable(total: CellTotal) -> int:
    return total.count if total.seconds > 0 else 0


def _log_rate(total: CellTotal) -> float:
    return math.log(total.count / total.seconds)


def crossover_table(blocks: Sequence[PairedBlock], kind: CellKind, min_count: int) -> BlockTable:
    """The judge's table of a run whose arms swap places from one block to the next."""
    found = pairs(blocks, kind, min_count)
    busy = _busy_seconds(blocks, kind)
    cells = tuple(sorted(busy, key=lambda cell: cell.order))
    return BlockTable(
        cells=cells,
        starts=np.array([pair.start_seconds for pair in found]),
        log_ratios=np.array(
            [[pair.log_ratios.get(cell, math.nan) for cell in cells] for pair in found]
        ).reshape(len(found), len(cells)),
        busy=np.array([busy[cell] for cell in cells]),
    )


def _busy_seconds(blocks: Sequence[PairedBlock], kind: CellKind) -> dict[Cell, float]:
    seconds: dict[Cell, float] = {}
    for block in blocks:
        if block.stable is None:
            continue
        for cell, total in block.stable.totals.items():
            if cell.kind is kind and total.seconds > 0:
                seconds[cell] = seconds.get(cell, 0.0) + total.seconds
    return seconds
