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
# Ratios of the two variances at which quantiles are computed; between them the larger one holds.
_RATIO_STEPS_PER_DECADE = 8
_SMALLEST_RATIO, _LARGEST_RATIO = 1e-3, 1e2


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """The looks that a plan allows: after `first` blocks, then after each, up to `last`."""

    first: int
    last: int

    @property
    def possible(self) -> bool:
        """Whether there is a look at all before the deadline."""
        return 2 <= self.first <= self.last


def joint_quantile(
    ratio: float, freedom: float, looks: Looks, *, alpha: float, paths: int = _PATHS
) -> float:
    """The one-sided quantile of max over looks of error / sqrt(offset^2 + block^2 / K).

    `ratio` is the offset's variance over a block's; `freedom` are the degrees of freedom with
    which the offset's variance is known (inf: exactly). Deterministic: simulated from one seed.
    Ratios are rounded to a grid, to the side that gives the larger quantile.
    """
    if ratio <= _SMALLEST_RATIO:
        near = [0.0, _SMALLEST_RATIO]
    else:
        position = _RATIO_STEPS_PER_DECADE * math.log10(min(ratio, _LARGEST_RATIO))
        near = [
            10 ** (step / _RATIO_STEPS_PER_DECADE)
            for step in {math.floor(position), math.ceil(position)}
        ]
    return max(_quantile(value, freedom, looks, alpha, paths) for value in near)


@lru_cache(maxsize=256)
def _quantile(ratio: float, freedom: float, looks: Looks, alpha: float, paths: int) -> float:
    worst = _worst(ratio, freedom, looks, paths)
    return float(np.quantile(worst, 1 - alpha))


@lru_cache(maxsize=16)
def _worst(ratio: float, freedom: float, looks: Looks, paths: int) -> NDArray[np.float64]:
    source = np.random.default_rng(_SEED)
    half = paths // 2
    offset = _mirrored(source.standard_normal(half))
    known = source.chisquare(freedom, paths) / freedom if math.isfinite(freedom) else 1.0
    mean = np.zeros(paths)
    worst = np.full(paths, -np.inf)
    for count in range(1, looks.last + 1):
        mean += (_mirrored(source.standard_normal(half)) - mean) / count
        if count < looks.first:
            continue
        error = math.sqrt(ratio) * offset + mean
        np.maximum(worst, error / np.sqrt(ratio * known + 1 / count), out=worst)
    return worst


def _mirrored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values, -values])


def sequence_half_width(count: int, variance: float, *, alpha: float, aim: int = 24) -> float:
    """The asymptotic confidence sequence's half-width for a mean of `count` blocks, one-sided.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Ann. Stat. 2024, with the mixture tuned to be
    tightest at `aim` blocks. Wider than the joint quantile, and valid without a deadline: the
    fallback where no deadline is declared, and what tests hold the joint quantile against.
    """
    tail = 2 * alpha
    log_tail = -2 * math.log(tail)
    rho2 = (log_tail + math.log(log_tail) + 1) / aim
    grown = count * rho2 + 1
    return math.sqrt(2 * grown / (count**2 * rho2) * math.log(math.sqrt(grown) / tail) * variance)


def freedom_of_sum(parts: Sequence[tuple[float, float]]) -> float:
    """Welch and Satterthwaite: degrees of freedom of a sum of (variance, freedom) parts."""
    whole = math.fsum(variance for variance, _ in parts)
    loss = math.fsum(variance**2 / freedom for variance, freedom in parts if variance > 0)
    return whole**2 / loss if loss > 0 else math.inf
