"""The text, against prometheus-client's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.registry import Collector

from moe_serve.exporter.exposition import render
from moe_serve.exporter.samples import Samples
from moe_serve.metrics.catalogue import METRICS, Type
from tests.exporter import workers


class Oracle(Collector):
    """The same samples as prometheus-client's metrics."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        for name, metric in METRICS.items():
            if metric.type is Type.HISTOGRAM:
                family = HistogramMetricFamily(metric.full_name, metric.help, labels=metric.labels)
                for labels, found in self._samples.histograms.get(name, {}).items():
                    family.add_metric(labels, found.buckets(), found.sum)
            else:
                kind = CounterMetricFamily if metric.type is Type.COUNTER else GaugeMetricFamily
                family = kind(metric.full_name, metric.help, labels=metric.labels)
                for labels, value in self._samples.values.get(name, {}).items():
                    family.add_metric(labels, value)
            if family.samples:
                yield family


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    writer = workers.worker(tmp_path, policy='a "quoted"\\ name\nof two lines')
    found = workers.collected(tmp_path)
    writer.close()
    found.put("peak_flops", 1e-9, "x", "tiny", "y")
    found.put("clock_hertz", 123456789.25, "x")
    return found


@pytest.mark.parametrize(
    ("openmetrics", "write"), [(False, generate_latest), (True, generate_openmetrics)]
)
def test_the_text_is_the_librarys(openmetrics: bool, write: object, samples: Samples) -> None:
    registry = CollectorRegistry()
    registry.register(Oracle(samples))

    assert render(samples, openmetrics=openmetrics) == write(registry)  # type: ignore[operator]


def test_both_formats_parse_and_hold_the_catalogue_alone(samples: Samples) -> None:
    families = list(parse(render(samples, openmetrics=False).decode()))
    strict = list(parse_openmetrics(render(samples, openmetrics=True).decode()))
    known = {metric.full_name.removesuffix("_total") for metric in METRICS.values()}

    assert {family.name for family in families} <= known
    assert {family.name for family in strict} == {family.name for family in families}
    assert {family.type for family in strict} == {"counter", "gauge", "histogram"}
