"""A mean over pairs with its interval, on the log scale. Nothing here looks at a clock."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from moe_serve.canary.analysis.interval import t_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A mean log ratio of n values; the ends are None with a single value: it has no spread."""

    count: int
    theta: float
    lo: float | None
    hi: float | None

    @property
    def ratio(self) -> float:
        """Canary over stable."""
        return math.exp(self.theta)

    @property
    def half_width(self) -> float | None:
        """Half the interval, in log units (0.03 is about 3 percentage points)."""
        return None if self.lo is None or self.hi is None else (self.hi - self.lo) / 2

    def to_json(self) -> dict[str, object]:
        """Log ratios, and the ratio itself."""
        return {
            "count": self.count,
            "theta": self.theta,
            "lo": self.lo,
            "hi": self.hi,
            "ratio": self.ratio,
        }


def spread(values: Sequence[float], confidence: float) -> Spread:
    """Student's t with n - 1 degrees of freedom, two-sided.

    Pairs are taken as independent: a drift of the machine moves both arms of a pair alike, and
    the ratio drops it. Valid for ONE look, after a number of pairs that was fixed before.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Spread(count=count, theta=mean, lo=None, hi=None)
    squares = math.fsum((value - mean) ** 2 for value in values)
    error = math.sqrt(squares / (count - 1) / count)
    half = t_quantile((1 + confidence) / 2, count - 1) * error
    return Spread(count=count, theta=mean, lo=mean - half, hi=mean + half)
