"""What a comparison's rules take from an A/A run: the noise of blocks, the spread of pods."""

import math
from dataclasses import dataclass, replace

import numpy as np

from moe_serve.analysis.estimator import EstimatorSettings, cell_weights, registered_only
from moe_serve.analysis.history import ArmHistory, History
from moe_serve.analysis.noise import (
    Calibration,
    PodVariation,
    block_seconds,
    long_run_variance,
)
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import Floats
from moe_serve.analysis.table import BlockTable, Estimand, block_table, pooled
from moe_serve.analysis.validity import config_differences
from moe_serve.analysis.windows import arm_windows, paired_windows
from moe_serve.errors import UsageError

MIN_BLOCKS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """`mean_log_ratio` is the arms' mean log ratio, which should be of the size of the
    variation between pods.

    `pod_variation` is None with fewer than two pods that ran the same cells. `advised_seconds` is
    the shortest block that the autocorrelation of the noise allows.
    """

    calibration: Calibration
    pod_variation: PodVariation | None
    mean_log_ratio: float
    advised_seconds: float


def calibrate(history: History, analysis_plan: AnalysisPlan) -> CalibrationResult:
    """The figures of a run of equal arms, by the registration's own cut, rate, sizes and weights.

    A pod's offset holds what is left of its noise after the whole run, so the spread is never
    too small for that.

    Raises:
        UsageError: the arms are not equal, or there are too few blocks.
    """
    if differences := config_differences(history.stable.facts, history.canary.facts, ()):
        raise UsageError(f"no A/A run: the arms differ in {', '.join(differences)}")
    blocking, kind = analysis_plan.blocking, analysis_plan.policy.primary
    settings = analysis_plan.settings(len(history.stable.pods), len(history.canary.pods))
    table = block_table(paired_windows(history, kind, blocking), blocking)
    values = _pooled(table, settings)
    if len(values) < MIN_BLOCKS:
        raise UsageError(
            f"an A/A run needs {MIN_BLOCKS} blocks of {blocking.block_seconds:g} s with data of "
            f"both arms, this one has {len(values)}"
        )
    variance, memory = long_run_variance(values)
    # The noise's memory is seen in windows; blocks hide it.
    share = blocking.window_seconds / blocking.block_seconds
    fine = replace(
        blocking,
        block_seconds=blocking.window_seconds,
        min_count=max(1, round(blocking.min_count * share)),
    )
    fine_table = block_table(paired_windows(history, kind, fine), fine)
    windows = _pooled(fine_table, settings)
    of_windows = long_run_variance(windows)[1] if len(windows) > MIN_BLOCKS else memory
    return CalibrationResult(
        calibration=Calibration(
            block_seconds=blocking.block_seconds,
            block_variance=float(variance),
            blocks=len(values),
            autocorrelation=float(memory),
        ),
        pod_variation=_spread(history, table, blocking.window_seconds, settings),
        mean_log_ratio=float(values.mean()),
        advised_seconds=block_seconds(float(of_windows), blocking.window_seconds),
    )


def _pooled(table: BlockTable, settings: EstimatorSettings) -> Floats:
    """One log ratio a block (mix weights), of the blocks that have any with a weight."""
    table = registered_only(table, settings.batches)
    if not np.isfinite(table.log_ratios).any():
        return np.zeros(0)
    weights = cell_weights(table, settings, Estimand.MIX)
    some = np.isfinite(table.log_ratios[:, weights > 0]).any(axis=1)
    found: Floats = pooled(table.log_ratios, weights, Estimand.MIX).influence[some]
    return found[np.isfinite(found)]


def _spread(
    history: History, table: BlockTable, width: float, settings: EstimatorSettings
) -> PodVariation | None:
    """Log SD between pods, over the cells that decide and all of them ran, by the mix's weights."""
    decide = np.array(
        [
            cell.exact and cell.bucket in (settings.batches or (cell.bucket,))
            for cell in table.cells
        ],
        dtype=bool,
    )
    columns = [history.cells.index(cell) for cell in table.cells]
    count = int((history.end - history.start) // width)
    rows = []
    for arm in (history.stable, history.canary):
        for pod in arm.pods:
            alone = ArmHistory(name=pod.pod, pods=(pod,))
            windows = arm_windows(alone, columns, history.start, width, count)
            rows.append(_log_rates(windows.runs.sum(axis=0), windows.busy.sum(axis=0)))
    rates = np.array(rows)
    common = np.isfinite(rates).all(axis=0) & decide
    weights = cell_weights(table, settings, Estimand.MIX) * common
    if len(rates) < 2 or not weights.sum() > 0:
        return None
    own = np.where(common, rates - rates.mean(axis=0), 0.0) @ (weights / weights.sum())
    return PodVariation(gpu_sd=float(own.std(ddof=1)), gpu_freedom=float(len(rates) - 1))


def _log_rates(runs: Floats, busy: Floats) -> Floats:
    good = (runs > 0) & (busy > 0)
    found: Floats = np.log(np.divide(runs, busy, out=np.full_like(runs, math.nan), where=good))
    return found
