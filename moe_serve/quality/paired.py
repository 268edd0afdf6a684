"""Two arms' answers to the same items: McNemar's exact test, Tango's interval, and power.

`lost` counts the items that only the baseline had right, `won` those that only the canary had.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq  # type: ignore[import-untyped]  # it ships no types
from scipy.special import bdtr, ndtri  # type: ignore[import-untyped]
from scipy.stats import binom  # type: ignore[import-untyped]

from moe_serve.errors import UsageError

Counts = NDArray[np.float64]


def mcnemar_exact(lost: int, won: int) -> float:
    """P value of "the canary is not worse", one-sided: small where it lost too many items."""
    discordant = lost + won
    return 1.0 if discordant == 0 else float(bdtr(won, discordant, 0.5))


def score(lost: Counts, won: Counts, items: int, difference: float) -> Counts:
    """Tango's score: standard deviations that (won - lost) / items lies above `difference`.

    Arrays of one shape; 0 where the data equal the difference with no variance left.
    """
    observed = won - lost - items * difference
    a = 2.0 * items
    b = -lost - won + (2 * items - won + lost) * difference
    c = -lost * difference * (1 - difference)
    # The share of lost items that is likeliest if the true difference is this one.
    share = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = items * (2 * share + difference * (1 - difference))
    spread = np.sqrt(np.maximum(variance, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Counts = np.where(spread > 0, observed / spread, np.sign(observed) * np.inf)
    return np.where(observed == 0, 0.0, found)


def interval(lost: int, won: int, items: int, *, alpha: float) -> tuple[float, float]:
    """Tango's bounds on canary minus baseline, each one-sided at level alpha.

    Raises:
        UsageError: counts that do not fit together.
    """
    if not (0 < alpha < 0.5 and lost >= 0 and won >= 0 and 0 < lost + won <= max(items, 0)):
        if items > 0 and lost == won == 0 and 0 < alpha < 0.5:
            # Nothing differs: what Tango's score still allows, in closed form.
            z2 = _z(alpha) ** 2
            return -z2 / (items + z2), z2 / (items + z2)
        raise UsageError(f"paired answers: lost {lost}, won {won} of {items} items, alpha {alpha}")
    z = _z(alpha)

    def root(target: float, low: float, high: float) -> float:
        def gap(difference: float) -> float:
            found = score(np.array(float(lost)), np.array(float(won)), items, difference)
            return float(np.clip(found, -1e6, 1e6)) - target

        return low if gap(low) <= 0 else high if gap(high) >= 0 else float(brentq(gap, low, high))

    seen = (won - lost) / items
    edge = 1 - 1e-9
    return root(z, -edge, seen), root(-z, seen, edge)


def power(
    *, items: int, margin: float, discordant: float, alpha: float = 0.05, difference: float = 0.0
) -> float:
    """Probability that the lower bound lies above -margin, exactly, over all (lost, won).

    `discordant` is the share of items on which the arms differ, `difference` the true canary minus
    baseline, both fractions.

    Raises:
        UsageError: shares that cannot be.
    """
    if not (items >= 1 and 0 < margin < 1 and abs(difference) <= discordant <= 1):
        raise UsageError(
            f"power: {items} items, margin {margin:g}, discordant {discordant:g}, difference "
            f"{difference:g}: needs 1 item or more, margin in (0, 1), |difference| <= discordant"
        )
    worse = (discordant - difference) / 2
    middle, spread = items * discordant, math.sqrt(items * discordant)
    low, high = max(0, int(middle - 8 * spread)), min(items, int(middle + 8 * spread) + 1)
    total = 0.0
    for differing in range(low, high + 1):
        lost = np.arange(differing + 1, dtype=np.float64)
        passes = score(lost, differing - lost, items, -margin) > _z(alpha)
        chance = binom.pmf(differing, items, discordant)
        if discordant > 0:
            total += chance * float(binom.pmf(lost, differing, worse / discordant) @ passes)
        else:
            total += chance * float(passes[0])
    return total


def _z(alpha: float) -> float:
    return -float(ndtri(alpha))
