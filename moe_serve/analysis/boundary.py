"""How far an estimate must lie from a threshold, at any look, for the threshold to be excluded.

The estimate's error has two parts: the arms' own offset (other GPUs, other process starts), which
is one and the same at every look, and the blocks' noise, which averages out. One quantile covers
both over all looks; two half-widths added up would pay for the offset twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Halves of the paths mirror the others, so quantiles are exact in sign and steady in the tail.
_PATHS = 40_000
_SEED = 20_241_124
# Blocks at which the boundary allows for twice the noise that is left: chosen by simulation.
_EARLY = 6
# Quantiles are computed at 8 ratios of the two variances a decade; the lowest stands for none.
RATIO_STEPS = 8
RATIO_ENDS = (-4.0 * RATIO_STEPS, 3.0 * RATIO_STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterimAnalyses:
    """The looks that a plan allows: after `first` blocks, then after each, up to `last`."""

    first: int
    last: int

    @property
    def possible(self) -> bool:
        """Whether there is a look at all before the deadline."""
        return 2 <= self.first <= self.last


def noise_share(count: int) -> float:
    """How much of one block's variance the boundary allows for after `count` blocks.

    1 / K is what is left of the noise; the rest holds early looks to a stricter standard, so that
    the late ones, at which most is known, have more of the alpha left.
    """
    return (1 + _EARLY / count) / count


def ratio_at(step: float) -> float:
    """The ratio at a step of the grid."""
    return 0.0 if step <= RATIO_ENDS[0] else 10.0 ** (step / RATIO_STEPS)


@lru_cache(maxsize=1024)
def joint_quantile(
    ratio: float, freedom: float, interim_analyses: InterimAnalyses, *, alpha: float
) -> float:
    """The one-sided quantile of max over looks of error / sqrt(offset^2 + block^2 / K).

    `ratio` is the offset's variance over a block's; `freedom` are the degrees of freedom with
    which the offset's variance is known (inf: exactly). Deterministic: simulated from one seed.
    """
    return float(np.quantile(_worst(ratio, freedom, interim_analyses), 1 - alpha))


@lru_cache(maxsize=8)
def _worst(ratio: float, freedom: float, interim_analyses: InterimAnalyses) -> NDArray[np.float64]:
    source = np.random.default_rng(_SEED)
    half = _PATHS // 2
    offset = _mirrored(source.standard_normal(half))
    known = source.chisquare(freedom, _PATHS) / freedom if math.isfinite(freedom) else 1.0
    mean = np.zeros(_PATHS)
    worst = np.full(_PATHS, -np.inf)
    for count in range(1, interim_analyses.last + 1):
        mean += (_mirrored(source.standard_normal(half)) - mean) / count
        if count < interim_analyses.first:
            continue
        error = math.sqrt(ratio) * offset + mean
        np.maximum(worst, error / np.sqrt(ratio * known + noise_share(count)), out=worst)
    return worst


def _mirrored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values, -values])


def freedom_of_sum(parts: Sequence[tuple[float, float]]) -> float:
    """Welch and Satterthwaite: degrees of freedom of a sum of (variance, freedom) parts."""
    whole = math.fsum(variance for variance, _ in parts)
    loss = math.fsum(variance**2 / freedom for variance, freedom in parts if variance > 0)
    return whole**2 / loss if loss > 0 else math.inf
