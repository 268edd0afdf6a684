"""The speed-up from paired blocks: per cell, pooled by fixed weights, with a paired t interval.

Adding a cell's missing pairs up to nothing would bend the sum, so every cell is averaged over the
pairs that have it, and the spread comes from each pair's influence on the weighted mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from moe_serve.canary.analysis.estimate import (
    CellEstimate,
    Estimate,
    NoEstimate,
    SeriesPoint,
    UncoveredCell,
)
from moe_serve.canary.analysis.interval import Interval, mean_interval
from moe_serve.canary.analysis.observations import Pair, busy_shares, pairs, sorted_cells
from moe_serve.canary.analysis.series import Cell, CellKind, PairedBlock
from moe_serve.errors import UsageError

MIN_PAIRS = 4
MIN_COUNT = 30


def estimate(
    blocks: Sequence[PairedBlock],
    kind: CellKind,
    *,
    weights: Mapping[Cell, float] | None = None,
    min_count: int = MIN_COUNT,
    min_pairs: int = MIN_PAIRS,
    confidence: float = 0.95,
) -> Estimate | NoEstimate:
    """The log ratio of the arms' rates (canary over stable), over the cells that are covered.

    Weights default to each cell's share of the stable arm's busy seconds over the whole run, and
    are fixed across pairs. A cell with fewer than `min_pairs` pairs is not covered: theta does not
    speak for it, and its weight is reported, not handed out. At given weights, swapping the arms
    negates theta and mirrors the interval exactly.
    """
    _check(weights, min_pairs, confidence)
    found = pairs(blocks, kind, min_count)
    shares = _normalised(weights) if weights is not None else busy_shares(blocks, kind)
    seen = {cell: sum(cell in pair.log_ratios for pair in found) for cell in shares}
    covered = {cell: share for cell, share in shares.items() if seen[cell] >= min_pairs}
    whole = _whole(found, covered, confidence)
    if whole is None or whole[0] < min_pairs:
        return NoEstimate(
            kind=kind, pairs=len(found), reason=_lack(blocks, found, kind, min_count, min_pairs)
        )
    count, interval, points = whole
    return Estimate(
        kind=kind,
        confidence=confidence,
        theta=interval.mean,
        lo=interval.lo,
        hi=interval.hi,
        pairs=count,
        effective_pairs=interval.effective,
        autocorrelation=interval.autocorrelation,
        covered_weight=math.fsum(covered.values()),
        cells=_estimates(found, [{cell: share} for cell, share in covered.items()], confidence),
        buckets=_estimates(found, _by_bucket(covered), confidence),
        uncovered=tuple(
            UncoveredCell(cell=cell, weight=share, pairs=seen[cell])
            for cell, share in shares.items()
            if cell not in covered
        ),
        series=_running(points, min_pairs, confidence),
    )


def _check(weights: Mapping[Cell, float] | None, min_pairs: int, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; it must lie between 0 and 1")
    if min_pairs < 3:
        raise UsageError(f"min_pairs is {min_pairs}; an interval needs at least 3")
    if weights is not None and not (weights and all(w > 0 for w in weights.values())):
        raise UsageError("weights must be given for at least one cell and be above 0")


def _normalised(weights: Mapping[Cell, float]) -> dict[Cell, float]:
    whole = math.fsum(weights.values())
    return {cell: weight / whole for cell, weight in sorted_cells(weights)}


def _by_bucket(covered: Mapping[Cell, float]) -> list[dict[Cell, float]]:
    buckets: dict[int, dict[Cell, float]] = {}
    for cell, share in covered.items():
        buckets.setdefault(cell.bucket, {})[cell] = share
    return list(buckets.values())


def _whole(
    found: Sequence[Pair], group: Mapping[Cell, float], confidence: float
) -> tuple[int, Interval, tuple[tuple[float, float], ...]] | None:
    """Of a group of cells: pairs, interval, and each pair's (start in seconds, log ratio).

    A pair's value is the weighted mean plus that pair's influence on it; where all cells are
    there, that is simply the pair's own weighted mean.
    """
    whole = math.fsum(group.values())
    columns = {
        cell: {number: p.log_ratios[cell] for number, p in enumerate(found) if cell in p.log_ratios}
        for cell in group
    }
    used = sorted({number for column in columns.values() for number in column})
    if len(used) < 2:
        return None
    means = {cell: math.fsum(col.values()) / len(col) for cell, col in columns.items()}
    theta = math.fsum(group[cell] / whole * means[cell] for cell in group)
    values = [
        theta
        + math.fsum(
            group[cell] / whole * len(used) / len(column) * (column[number] - means[cell])
            for cell, column in columns.items()
            if number in column
        )
        for number in used
    ]
    points = tuple((found[number].start_seconds, v) for number, v in zip(used, values, strict=True))
    return len(used), mean_interval(values, confidence), points


def _estimates(
    found: Sequence[Pair], groups: Iterable[Mapping[Cell, float]], confidence: float
) -> tuple[CellEstimate, ...]:
    made: list[CellEstimate] = []
    for group in groups:
        whole = _whole(found, group, confidence)
        if whole is None:
            continue
        count, interval, _ = whole
        first = next(iter(group))
        layer = first.layer if len(group) == 1 else None
        made.append(
            CellEstimate(
                cell=Cell(kind=first.kind, layer=layer, bucket=first.bucket),
                weight=math.fsum(group.values()),
                theta=interval.mean,
                lo=interval.lo,
                hi=interval.hi,
                pairs=count,
            )
        )
    return tuple(made)


def _running(
    points: Sequence[tuple[float, float]], min_pairs: int, confidence: float
) -> tuple[SeriesPoint, ...]:
    series: list[SeriesPoint] = []
    for number, (start, theta) in enumerate(points, start=1):
        so_far = [value for _, value in points[:number]]
        running = mean_interval(so_far, confidence) if number >= min_pairs else None
        series.append(
            SeriesPoint(
                start_seconds=start,
                theta=theta,
                running_theta=running.mean if running else None,
                running_lo=running.lo if running else None,
                running_hi=running.hi if running else None,
            )
        )
    return tuple(series)


def _lack(
    blocks: Sequence[PairedBlock],
    found: Sequence[Pair],
    kind: CellKind,
    min_count: int,
    min_pairs: int,
) -> str:
    if not blocks:
        return f"no blocks, so no {kind.value} rate"
    void = sum(block.void_reason is not None for block in blocks)
    if len(found) < min_pairs:
        return (
            f"{len(found)} crossover pairs of blocks, at least {min_pairs} are needed "
            f"({len(blocks)} blocks, {void} void)"
        )
    return (
        f"no {kind.value} cell has {min_pairs} pairs in which each arm ran it at least "
        f"{min_count} times a block"
    )
