"""Bounds on a mean that hold at every look of a fixed number of looks at once.

The boundary is one quantile for all looks (a Pocock boundary): the largest of the studentised
means over all planned looks exceeds it with probability alpha. It is computed by integrating the
random walk's density from look to look, not by splitting alpha among the looks, and carried over
to few clusters by its tail probability under Student's t.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq  # type: ignore[import-untyped]  # it ships no types
from scipy.special import ndtr, stdtrit  # type: ignore[import-untyped]

from moe_serve.errors import UsageError

_GRID, _LOWEST, _HIGHEST = 401, -8.0, 7.0
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """A one-sided confidence sequence: level `alpha` over all `looks` together."""

    alpha: float
    looks: int

    def __post_init__(self) -> None:
        """Refuse a level or a number of looks that means nothing."""
        if not (0 < self.alpha < 0.5 and self.looks >= 1):
            raise UsageError(
                f"a sequence needs alpha in (0, 0.5) and 1 look or more, got {self.alpha:g} and "
                f"{self.looks}"
            )

    @property
    def quantile(self) -> float:
        """What the largest standard normal mean over the looks exceeds with probability alpha."""
        return _quantile(self.alpha, self.looks)

    def half_width(self, spread: Floats, clusters: Floats, skewness: Floats) -> Floats:
        """Distance from the mean to its bound: `spread` is the clusters' standard deviation.

        `skewness` is theirs, positive where the long tail lies on the bound's side: a mean that
        has not met its tail yet is too near, so the bound moves out by the second term of the
        Cornish-Fisher expansion. It never moves in. Infinite below two clusters. Shapes follow
        numpy's broadcasting.
        """
        freedom = np.maximum(clusters - 1, 1)
        quantile = -stdtrit(freedom, ndtr(-self.quantile))
        root = np.sqrt(np.maximum(clusters, 1))
        tail = np.maximum(skewness, 0) * (1 + 2 * self.quantile**2) / (6 * root)
        half = (quantile + tail) * spread / root
        return np.where(clusters >= 2, half, np.inf)


@lru_cache(maxsize=64)
def _quantile(alpha: float, looks: int) -> float:
    return float(brentq(lambda c: _exceeded(c, looks) - alpha, 0.0, _HIGHEST, xtol=1e-6))


def _exceeded(boundary: float, looks: int) -> float:
    """Probability that a walk's standardised sum lies above the boundary at some look."""
    z = np.linspace(_LOWEST, boundary, _GRID)
    weights = np.full(_GRID, z[1] - z[0])
    weights[[0, -1]] /= 2
    density = _normal(z)
    for look in range(1, looks):
        step = np.sqrt(look + 1.0) * z[:, None] - np.sqrt(float(look)) * z[None, :]
        density = np.sqrt(look + 1.0) * (_normal(step) @ (density * weights))
    return 1.0 - float(density @ weights)


def _normal(x: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return density
