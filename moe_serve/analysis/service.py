"""What servers count of their requests: growth by block, for the guards."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from moe_serve.analysis.series import Floats


class Measure(StrEnum):
    """TTFT and ITL are histograms, a counter for each upper edge; the others one counter each."""

    TTFT = "ttft"
    ITL = "itl"
    FINISHED = "finished"
    FAILED = "failed"
    PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSeries:
    """One cumulative counter of one process; `edge` is a bucket's upper edge in seconds, else 0.

    `times` (samples,) are seconds since the epoch and grow; `values` (samples,).
    """

    measure: Measure
    edge: float
    times: Floats
    values: Floats

    def until(self, end: float) -> "CounterSeries":
        """The same as it stood at an earlier moment."""
        count = int(np.searchsorted(self.times, end, side="right"))
        return CounterSeries(
            measure=self.measure,
            edge=self.edge,
            times=self.times[:count],
            values=self.values[:count],
        )


def grown(
    series: Iterable[CounterSeries], measure: Measure, start: float, seconds: float, blocks: int
) -> dict[float, Floats]:
    """Growth (blocks,) by edge, over all processes; after a fall a counter began at zero."""
    found: dict[float, Floats] = {}
    for one in series:
        if one.measure is not measure:
            continue
        finite = np.isfinite(one.values)
        times, values = one.times[finite], one.values[finite]
        more = np.diff(values)
        more = np.where(more < 0, values[1:], more)
        place = np.floor((times[1:] - start) / seconds).astype(int)
        inside = (place >= 0) & (place < blocks)
        whole = found.setdefault(one.edge, np.zeros(blocks))
        np.add.at(whole, place[inside], more[inside])
    return found


def quantile(cumulative: dict[float, float], share: float) -> float | None:
    """A histogram's quantile as Prometheus interpolates it; above the last edge, that edge.

    `cumulative` counts observations at or below each edge, the infinite one included.
    """
    edges = sorted(cumulative)
    finite = [edge for edge in edges if math.isfinite(edge)]
    if not finite or not cumulative[edges[-1]] > 0:
        return None
    rank = share * cumulative[edges[-1]]
    lower, below = 0.0, 0.0
    for edge in finite:
        count = cumulative[edge]
        if count >= rank:
            part = (rank - below) / (count - below) if count > below else 1.0
            return lower + (edge - lower) * part
        lower, below = edge, count
    return lower
