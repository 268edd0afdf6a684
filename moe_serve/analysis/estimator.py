"""Step 3 of a comparison: tables become estimates, pooled by fixed weights, with repeated
confidence intervals: valid at every interim analysis up to the deadline.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import (
    CellEstimate,
    Estimate,
    Estimates,
    NoEstimate,
    SeriesPoint,
    UncoveredCell,
)
from moe_serve.analysis.noise import Calibration, Design, PodVariation
from moe_serve.analysis.running import IntervalRule, RunningEstimate, running
from moe_serve.analysis.series import Cell, CellKind, Floats
from moe_serve.analysis.table import (
    MIN_BLOCKS,
    BlockTable,
    Estimand,
    as_array,
    pooled,
)
from moe_serve.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorSettings:
    """What a comparison's numbers rest on, fixed before its start.

    `weights` are shares of the stable arm's busy time by cell (None: this run's own); one without
    a mode is of all modes of its batch size, in this run's own proportions. `batches` are the sizes
    that the estimate speaks for (None: all); others keep their weight, as not covered. `alpha_low`
    is the chance of ever promoting at the margin, `alpha_high` that of ever calling a gain absent.
    """

    interim_analyses: InterimAnalyses
    pod_variation: PodVariation
    design: Design = Design.PARALLEL
    stable_pods: int = 1
    canary_pods: int = 1
    calibration: Calibration | None = None
    weights: Mapping[Cell, float] | None = None
    batches: tuple[int, ...] | None = None
    alpha_low: float = 0.05
    alpha_high: float = 0.02

    def __post_init__(self) -> None:
        """Refuse terms under which nothing could be decided."""
        if not self.interim_analyses.possible:
            raise UsageError(
                f"cannot be decided: the first interim analysis comes after "
                f"{self.interim_analyses.first} blocks, the deadline after "
                f"{self.interim_analyses.last}; allow more time or shorter blocks"
            )
        if min(self.stable_pods, self.canary_pods) < 1:
            raise UsageError("each arm needs at least one pod")
        if not (0 < self.alpha_low < 0.5 and 0 < self.alpha_high < 0.5):
            raise UsageError("alpha_low and alpha_high must lie between 0 and 0.5")

    @property
    def offset_sd(self) -> float:
        """How far equal arms lie apart for good: log SD of their difference."""
        return math.sqrt(
            self.pod_variation.offset(self.design, self.stable_pods, self.canary_pods)[0]
        )

    @property
    def rule(self) -> IntervalRule:
        """The interval's rule."""
        offset, freedom = self.pod_variation.offset(self.design, self.stable_pods, self.canary_pods)
        return IntervalRule(
            interim_analyses=self.interim_analyses,
            offset=offset,
            freedom=freedom,
            calibrated=self.calibration.block_variance if self.calibration else None,
            alpha_low=self.alpha_low,
            alpha_high=self.alpha_high,
        )


def estimate_all(
    tables: Mapping[CellKind, BlockTable],
    mixed: BlockTable,
    primary: CellKind,
    settings: EstimatorSettings,
) -> Estimates:
    """The estimates of both rates, of equal weights, and of batches with prefill (`mixed`)."""
    # The plan's weights are of the primary kind's cells; the other kind has this run's own mix.
    unweighted = replace(settings, weights=None)
    step, kernel = (
        estimate(tables[kind], kind, settings if kind is primary else unweighted)
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
    return Estimates(
        primary_kind=primary,
        step=step,
        kernel=kernel,
        equal=estimate(tables[primary], primary, settings, estimand=Estimand.EQUAL),
        mixed=estimate(mixed, primary, replace(unweighted, batches=None)),
    )


def estimate(
    table: BlockTable,
    kind: CellKind,
    settings: EstimatorSettings,
    *,
    estimand: Estimand = Estimand.MIX,
) -> Estimate | NoEstimate:
    """The speed-up over the covered cells, at the latest look that the terms allow.

    A cell with fewer than three blocks is not covered: theta does not speak for it, and its weight
    is reported, not handed out. At given weights of the `equal` estimand, swapping the arms
    negates theta and mirrors the ends exactly; of `mix` it does so up to the weights' own swap.
    """
    whole, table = table, registered_only(table, settings.batches)
    weights = cell_weights(table, settings, estimand)
    seen = (~np.isnan(table.log_ratios)).sum(axis=0)
    covered = np.where(seen >= MIN_BLOCKS, weights, 0.0)
    blocks = len(table.starts)
    lacking = NoEstimate(
        kind=kind, blocks=blocks, reason=_lack(blocks, int(covered.any()), kind, settings)
    )
    if not covered.any():
        return lacking
    looked = running(table.log_ratios, weights, settings.rule, estimand=estimand)
    if not looked.at or math.isnan(looked.theta[-1]):
        return lacking
    # A size that is not to decide is still looked at: clearly slower, it forbids a promotion.
    ran = np.where((~np.isnan(whole.log_ratios)).sum(axis=0) >= MIN_BLOCKS, weights, 0.0)
    own = [[int(number)] for number in np.flatnonzero(ran)]
    return Estimate(
        kind=kind,
        estimand=estimand,
        theta=float(looked.theta[-1]),
        lo=float(looked.lo[-1]),
        hi=float(looked.hi[-1]),
        alpha_low=settings.alpha_low,
        alpha_high=settings.alpha_high,
        blocks=looked.at[-1],
        in_run_sd=math.sqrt(looked.in_run[-1]),
        block_sd=math.sqrt(looked.used[-1]),
        autocorrelation=float(looked.autocorrelation[-1]),
        offset_sd=settings.offset_sd,
        offset_freedom=settings.rule.freedom,
        covered_weight=float(covered.sum()),
        cells=_estimates(whole, weights, own, settings, estimand),
        buckets=_estimates(whole, weights, _by_bucket(whole.cells, ran), settings, estimand),
        uncovered=(
            *(
                UncoveredCell(cell=cell, weight=float(weight), blocks=int(count))
                for cell, weight, count in zip(table.cells, weights, seen, strict=True)
                if weight > 0 and count < MIN_BLOCKS
            ),
            *(
                UncoveredCell(cell=cell, weight=weight, blocks=0)
                for cell, weight in _given(table, settings, estimand).items()
                if weight > 0 and cell not in table.cells
            ),
        ),
        series=_series(table, weights, looked, estimand),
    )


def registered_only(table: BlockTable, batches: tuple[int, ...] | None) -> BlockTable:
    """The table with log ratios of the registered batch sizes alone (None: all are)."""
    if batches is None:
        return table
    own = np.array([cell.bucket in batches for cell in table.cells], dtype=bool)
    return replace(table, log_ratios=np.where(own, table.log_ratios, math.nan))


def cell_weights(table: BlockTable, settings: EstimatorSettings, estimand: Estimand) -> Floats:
    """In the order of the table's cells; what lacks to 1 is of cells that it does not have."""
    return as_array(table.cells, _given(table, settings, estimand))


def _given(table: BlockTable, settings: EstimatorSettings, estimand: Estimand) -> dict[Cell, float]:
    """Shares that sum to 1 over the table's cells and those that are in the weights alone."""
    shares = table.shares()
    given = dict(shares if settings.weights is None else _by_mode(settings.weights, shares))
    if estimand is Estimand.EQUAL:
        given = dict.fromkeys(given, 1.0)
    whole = math.fsum(given.values())
    return {cell: weight / whole for cell, weight in given.items()} if whole > 0 else given


def _by_mode(weights: Mapping[Cell, float], shares: Mapping[Cell, float]) -> dict[Cell, float]:
    found: dict[Cell, float] = {}
    for cell, weight in weights.items():
        ran = {own: busy for own, busy in shares.items() if replace(own, mode="") == cell}
        whole = math.fsum(ran.values())
        found |= {own: weight * busy / whole for own, busy in ran.items()} or {cell: weight}
    return found


def _by_bucket(cells: Sequence[Cell], covered: Floats) -> list[list[int]]:
    buckets: dict[tuple[str, int, str], list[int]] = {}
    for number in np.flatnonzero(covered).tolist():
        cell = cells[number]
        buckets.setdefault((cell.phase, cell.bucket, cell.mode), []).append(number)
    return list(buckets.values())


def _estimates(
    table: BlockTable,
    weights: Floats,
    groups: Iterable[Sequence[int]],
    settings: EstimatorSettings,
    estimand: Estimand,
) -> tuple[CellEstimate, ...]:
    listed = list(groups)
    # The A/A run's variance is that of the whole; a cell's own noise is known from this run alone.
    share = max(1, len(listed))
    rule = replace(
        settings.rule,
        calibrated=None,
        alpha_low=settings.alpha_low / share,
        alpha_high=settings.alpha_low / share,
    )
    made: list[CellEstimate] = []
    for group in listed:
        columns = table.log_ratios[:, group]
        columns = columns[(~np.isnan(columns)).any(axis=1)]
        count = min(len(columns), settings.interim_analyses.last)
        own = weights[group] / weights[group].sum()
        found = running(columns, own, rule, estimand=estimand, at=[count])
        first = table.cells[group[0]]
        wide = count < max(settings.interim_analyses.first, MIN_BLOCKS + 1)
        made.append(
            CellEstimate(
                cell=first if len(group) == 1 else replace(first, layer=None),
                weight=float(weights[group].sum()),
                theta=float(found.theta[0]),
                lo=-math.inf if wide else float(found.lo[0]),
                hi=math.inf if wide else float(found.hi[0]),
                blocks=count,
            )
        )
    return tuple(made)


def _series(
    table: BlockTable, weights: Floats, looked: RunningEstimate, estimand: Estimand
) -> tuple[SeriesPoint, ...]:
    last = looked.at[-1]
    values = pooled(table.log_ratios[:last], weights, estimand).influence
    seen = np.isfinite(table.log_ratios[:last, weights > 0]).sum(axis=1) > 0
    place = {count: number for number, count in enumerate(looked.at)}

    def running_at(count: int, ends: Floats) -> float | None:
        at = place.get(count)
        return None if at is None or math.isnan(ends[at]) else float(ends[at])

    return tuple(
        SeriesPoint(
            start_seconds=float(table.starts[number]),
            theta=float(values[number]) if seen[number] else None,
            running_theta=running_at(number + 1, looked.theta),
            running_lo=running_at(number + 1, looked.lo),
            running_hi=running_at(number + 1, looked.hi),
        )
        for number in range(last)
    )


def _lack(blocks: int, covered: int, kind: CellKind, settings: EstimatorSettings) -> str:
    if not blocks:
        return f"no block in which both arms ran, so no {kind.value} rate"
    if blocks < settings.interim_analyses.first:
        return f"{blocks} blocks, the first look comes after {settings.interim_analyses.first}"
    if not covered:
        return f"no {kind.value} cell ran often enough in {MIN_BLOCKS} blocks of both arms"
    return f"no {kind.value} rate"
