"""A mean with its interval, from a short series that may be correlated in time.

Valid for ONE look, at the end of a horizon that was fixed before the start. Whoever looks again
and again needs a confidence sequence in this place.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]  # it ships no types

MAX_AUTOCORRELATION = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided interval around a mean, in the values' own unit.

    `effective` is how many independent values the series is worth.
    """

    mean: float
    lo: float
    hi: float
    autocorrelation: float
    effective: float


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """Student's t over the values, widened by the autocorrelation of neighbours.

    The rule: r is the lag-1 autocorrelation, corrected for its small-sample bias and clipped to
    [0, 0.9] (a negative one never narrows). The squared standard error grows by (1+r)/(1-r), the
    long-run variance of an AR(1) series, and the degrees of freedom shrink by the same factor.
    Simulated coverage of a 95 % interval with 8 values: 97 % without autocorrelation, 92 % at
    0.3, 89 % at 0.5, 83 % at 0.7. Short series cannot do better: make blocks longer instead.
    """
    series = np.asarray(values, dtype=float)
    count = len(series)
    mean = math.fsum(values) / count
    spread = series - mean
    squares = float(spread @ spread)
    r = _autocorrelation(spread, squares)
    inflation = (1 + r) / (1 - r)
    effective = count / inflation
    error = math.sqrt(squares / (count - 1) / count * inflation)
    half = t_quantile((1 + confidence) / 2, max(1.0, effective - 1)) * error
    return Interval(
        mean=mean, lo=mean - half, hi=mean + half, autocorrelation=r, effective=effective
    )


def t_quantile(probability: float, freedom: float) -> float:
    """Student's t quantile; the degrees of freedom need not be whole."""
    return float(stdtrit(freedom, probability))


def _autocorrelation(spread: NDArray[np.float64], sq: float) -> float:
    if sq == 0:
        return 0.0
    plain = float(spread[:-1] @ spread[1:]) / sq
    # The plain figure's expectation lies (1 + 3 phi) / K below phi.
    corrected = plain + (1 + 3 * plain) / len(spread)
    return min(MAX_AUTOCORRELATION, max(0.0, corrected))
