"""Values of a catalogue's metrics at one moment, by labels."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from moe_serve.metrics.catalogue import Catalogue, MetricType

LabelValues = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram: `counts` per bucket, not cumulative, and the `sum` of all observations.

    `bounds` are the buckets' upper ends as Prometheus writes them, the last one `+Inf`.
    """

    bounds: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float

    def buckets(self) -> Iterable[tuple[str, int]]:
        """Each upper end, and how many observations are not above it."""
        return zip(self.bounds, accumulate(self.counts), strict=True)


class Samples:
    """Values by metric and labels; `catalogue` names the metrics, in the order of the text."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.values: dict[str, dict[LabelValues, float]] = defaultdict(dict)
        self.histograms: dict[str, dict[LabelValues, Distribution]] = defaultdict(dict)

    def put(self, name: str, value: float | None, *labels: str) -> None:
        """Set a gauge, or add to a counter; None adds no sample."""
        if value is None:
            return
        series = self.values[name]
        if labels in series and self.catalogue[name].type is MetricType.COUNTER:
            value += series[labels]
        series[labels] = value

    def put_state(self, name: str, state: str | None, *, of: Iterable[str]) -> None:
        """Set a gauge with one label per possible state: 1 for `state`, 0 for the others."""
        for each in of:
            self.put(name, int(each == state), each)

    def count(self) -> int:
        """How many series these are; a histogram has one per bucket, its count and its sum."""
        distributions = [each for named in self.histograms.values() for each in named.values()]
        return sum(map(len, self.values.values())) + sum(
            len(each.bounds) + 2 for each in distributions
        )
