"""The benchmark's rules, declared before its start, and its interval over pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scipy.special import stdtrit  # type: ignore[import-untyped]  # it ships no types

from moe_serve.analysis.policy import Policy
from moe_serve.errors import UsageError

PAIRS = 5
# The published interval has 2.5 % on either side, or less if the policy promotes at less.
_SIDE = 0.025
# Speed, time to first token, time between tokens: any of them may roll back.
_CAUSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The limits of the protocol, beside the policy's margin, harm and error rates.

    `claim` is a published ratio to compare with: 1.08 is 8 % faster; it decides nothing. `pairs` is
    the planned number (None: as the results declare, else 5). `latency_harm` is the share by which
    a p99 may rise. `max_half_width` is in log units. Above `max_client_busy`, a share of one core,
    the client may have limited the rate.
    """

    policy: Policy = field(default_factory=Policy)
    claim: float = 1.08
    pairs: int | None = None
    latency_harm: float = 0.05
    max_half_width: float = 0.03
    max_client_busy: float = 0.7

    def __post_init__(self) -> None:
        """Refuse a claim that is no plausible ratio."""
        if not 0.5 <= self.claim <= 2:
            raise UsageError(
                f"--claim {self.claim}: not between 0.5 and 2; give a ratio, as 1.08 for 8 % faster"
            )

    @property
    def side(self) -> float:
        """The chance that the truth lies beyond one given end of the shown interval."""
        return min(_SIDE, self.policy.alpha_promote)

    @property
    def rollback_side(self) -> float:
        """The chance per cause of a rollback by noise alone."""
        return min(self.side, self.policy.alpha_rollback / _CAUSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunVariation:
    """The mean of `count` log ratios with its interval, by Student's t with `count` - 1 degrees.

    `error` is the standard error; a single value has none, and no interval.
    """

    count: int
    theta: float
    error: float | None
    side: float

    @property
    def lo(self) -> float | None:
        """The shown interval's lower end."""
        return self.low(self.side)

    @property
    def hi(self) -> float | None:
        """The shown interval's upper end."""
        return self.high(self.side)

    def low(self, alpha: float) -> float | None:
        """The lower confidence bound at level 1 - `alpha`; None without an interval."""
        return None if self.error is None else self.theta - self._quantile(alpha) * self.error

    def high(self, alpha: float) -> float | None:
        """The upper confidence bound at level 1 - `alpha`; None without an interval."""
        return None if self.error is None else self.theta + self._quantile(alpha) * self.error

    def _quantile(self, alpha: float) -> float:
        return float(stdtrit(self.count - 1, 1 - alpha))

    @property
    def ratio(self) -> float:
        """Canary over stable."""
        return math.exp(self.theta)

    def ends(self) -> str:
        """`1.041 to 1.114`."""
        if self.lo is None or self.hi is None:
            return "no interval"
        return f"{math.exp(self.lo):.3f} to {math.exp(self.hi):.3f}"

    def to_json(self) -> dict[str, object]:
        """Log ratios, and the ratio itself."""
        return {
            "count": self.count,
            "theta": self.theta,
            "lo": self.lo,
            "hi": self.hi,
            "ratio": self.ratio,
        }


def spread(values: Sequence[float], side: float) -> RunVariation:
    """The mean of independent values with its interval; `side` is the chance beyond each end.

    Pairs are independent, because drift moves both arms of a pair alike and cancels in the ratio.
    Valid for one analysis, after a number of pairs that was fixed in advance.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return RunVariation(count=count, theta=mean, error=None, side=side)
    squares = math.fsum((value - mean) ** 2 for value in values)
    error = math.sqrt(squares / (count - 1) / count)
    return RunVariation(count=count, theta=mean, error=error, side=side)
