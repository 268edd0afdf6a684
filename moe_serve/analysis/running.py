"""The estimate at every look, with ends that hold over all looks at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.boundary import (
    RATIO_ENDS,
    RATIO_STEPS,
    InterimAnalyses,
    joint_quantile,
    noise_share,
    ratio_at,
)
from moe_serve.analysis.noise import block_variance, long_run_variance
from moe_serve.analysis.series import Floats
from moe_serve.analysis.table import MIN_BLOCKS, Estimand, pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRule:
    """What is fixed before the start, for one estimand.

    `offset` is the variance of the arms' own offset, with its degrees of freedom; `calibrated` a
    block's variance by an A/A run; both are numbers, or one a run. `alpha_low` and `alpha_high`
    are the chances that the lower end ever lies above, or the upper below, the truth.
    """

    interim_analyses: InterimAnalyses
    offset: Floats | float
    freedom: float
    calibrated: Floats | float | None
    alpha_low: float
    alpha_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEstimate:
    """Arrays of the shape (..., looks); `in_run` is this run's own block variance, `used` the
    interval's. All NaN where no cell is covered.
    """

    at: tuple[int, ...]
    theta: Floats
    lo: Floats
    hi: Floats
    covered: Floats
    in_run: Floats
    used: Floats
    autocorrelation: Floats


def running(
    log_ratios: Floats,
    weights: Floats,
    rule: IntervalRule,
    *,
    estimand: Estimand = Estimand.MIX,
    at: Sequence[int] | None = None,
    min_blocks: int = MIN_BLOCKS,
) -> RunningEstimate:
    """The estimate after each count of blocks in `at` (default: every look so far).

    `log_ratios` (..., blocks, cells), leading axes being independent runs.
    """
    blocks = log_ratios.shape[-2]
    counts = (
        range(rule.interim_analyses.first, min(blocks, rule.interim_analyses.last) + 1)
        if at is None
        else at
    )
    columns: list[tuple[Floats, ...]] = []
    for count in counts:
        found = pooled(log_ratios[..., :count, :], weights, estimand, min_blocks=min_blocks)
        in_run, r = long_run_variance(found.influence)
        used = block_variance(in_run, count, rule.calibrated)
        error = np.sqrt(rule.offset + used * noise_share(count))
        low, high = (_quantiles(rule, used, alpha) for alpha in (rule.alpha_low, rule.alpha_high))
        columns.append(
            (
                found.theta,
                found.theta - low * error,
                found.theta + high * error,
                found.covered,
                in_run,
                used,
                r,
            )
        )
    shape = (*log_ratios.shape[:-2], 0)
    theta, lo, hi, covered, in_run, used, r = (
        (np.stack(parts, axis=-1) for parts in zip(*columns, strict=True))
        if columns
        else (np.empty(shape) for _ in range(7))
    )
    return RunningEstimate(
        at=tuple(counts),
        theta=theta,
        lo=lo,
        hi=hi,
        covered=covered,
        in_run=in_run,
        used=used,
        autocorrelation=r,
    )


def _quantiles(rule: IntervalRule, used: Floats, alpha: float) -> Floats:
    """The joint quantile of each run, computed once for runs whose variances hardly differ."""
    offset = np.broadcast_to(rule.offset, used.shape)
    ratio = np.divide(offset, used, out=np.full(used.shape, np.inf), where=used > 0)
    ratio = np.where(offset > 0, ratio, 0.0)
    with np.errstate(divide="ignore"):
        place = np.clip(RATIO_STEPS * np.log10(ratio), *RATIO_ENDS)
    below = np.floor(place)
    steps = np.unique(np.concatenate([below.ravel(), np.minimum(below + 1, RATIO_ENDS[1]).ravel()]))
    known = [
        joint_quantile(ratio_at(step), rule.freedom, rule.interim_analyses, alpha=alpha)
        for step in steps.tolist()
    ]
    found: Floats = np.interp(place, steps, known)
    return found
