"""prometheus-client's own text of samples: what the renderer is held against."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client import core as client
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from moe_serve.metrics.catalogue import Metric, MetricType
from moe_serve.metrics.exposition import OPENMETRICS, TEXT
from moe_serve.metrics.samples import Samples

WRITERS = {TEXT: generate_latest, OPENMETRICS: generate_openmetrics}


class Oracle(Collector):
    """The same samples as prometheus-client's metrics."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[client.Metric]:
        for name, metric in self._samples.catalogue.items():
            family = self._family(name, metric)
            if family.samples:
                yield family

    def _family(self, name: str, metric: Metric) -> client.Metric:
        if metric.type is MetricType.HISTOGRAM:
            histogram = client.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, found in self._samples.histograms.get(name, {}).items():
                buckets = [(bound, float(count)) for bound, count in found.buckets()]
                histogram.add_metric(labels, buckets, found.sum)
            return histogram
        is_counter = metric.type is MetricType.COUNTER
        kind = client.CounterMetricFamily if is_counter else client.GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, value in self._samples.values.get(name, {}).items():
            family.add_metric(labels, value)
        return family


def library_text(samples: Samples, kind: str) -> bytes:
    """What prometheus-client writes."""
    registry = CollectorRegistry()
    registry.register(Oracle(samples))
    return WRITERS[kind](registry)
