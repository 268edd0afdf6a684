"""Samples as text, byte for byte as prometheus-client writes them, but with label texts kept.

Of the fourteen thousand series of a large pod only the values change from one scrape to the next;
prometheus-client checks and escapes every label anew, which is most of what a scrape costs it.
"""

from collections.abc import Iterator
from functools import lru_cache

from prometheus_client.utils import floatToGoString

from moe_serve.exporter.samples import Distribution, Labels, Samples
from moe_serve.metrics.catalogue import METRICS, Metric, Type

_KEPT = 2**15  # label texts of a metric; versions and names that change must not pile up


def render(samples: Samples, *, openmetrics: bool) -> bytes:
    """Every metric that has a sample: Prometheus's text format 0.0.4, or OpenMetrics 1.0."""
    lines: list[str] = []
    for name, metric in METRICS.items():
        values, histograms = samples.values.get(name, {}), samples.histograms.get(name, {})
        if values or histograms:
            lines.append(_head(metric, openmetrics=openmetrics))
        series = _series(metric.full_name, metric.labels)
        lines += [f"{series[labels]} {_text(value)}\n" for labels, value in values.items()]
        for labels, found in histograms.items():
            lines += _histogram(metric, labels, found)
    return "".join([*lines, "# EOF\n" if openmetrics else ""]).encode()


def _histogram(metric: Metric, labels: Labels, found: Distribution) -> Iterator[str]:
    buckets = _series(f"{metric.full_name}_bucket", (*metric.labels, "le"))
    for bound, value in found.buckets():
        yield f"{buckets[*labels, bound]} {_text(value)}\n"
    for suffix, value in (("_count", float(sum(found.counts))), ("_sum", found.sum)):
        yield f"{_series(metric.full_name + suffix, metric.labels)[labels]} {_text(value)}\n"


def _head(metric: Metric, *, openmetrics: bool) -> str:
    name = metric.full_name
    if openmetrics and metric.type is Type.COUNTER:
        name = name.removesuffix("_total")
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    text = text.replace('"', r"\"") if openmetrics else text
    return f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n"


def _text(value: float) -> str:
    # Below a million Go's way is Python's.
    return repr(value + 0.0) if 0 <= value < 1e6 else str(floatToGoString(value))  # type: ignore[no-untyped-call]


class _Series(dict[Labels, str]):
    """Of one metric: a series' name by its labels' values."""

    def __init__(self, name: str, labels: Labels) -> None:
        super().__init__()
        self._name, self._labels = name, labels

    def __missing__(self, values: Labels) -> str:
        if len(self) == _KEPT:
            self.clear()
        pairs = sorted(zip(self._labels, values, strict=True))
        text = ",".join(f'{key}="{_escape(value)}"' for key, value in pairs)
        series = self[values] = f"{self._name}{{{text}}}" if pairs else self._name
        return series


_series = lru_cache(maxsize=256)(_Series)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
