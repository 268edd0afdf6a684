"""Samples as the text that Prometheus scrapes, in both formats byte for byte prometheus-client's.

From one scrape of a large pod to the next only values change. So the text of a series' name and
labels is kept, where prometheus-client checks and escapes every label anew. For the 14,094 series
of the largest pod prometheus-client takes 12 to 21 times the CPU time (benchmarks/exposition.py,
both formats, two runs).
"""

import math
from collections.abc import Iterator
from functools import lru_cache

from moe_serve.metrics.catalogue import Metric, MetricType
from moe_serve.metrics.samples import Distribution, LabelValues, Samples

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_KEPT = 2**15  # series per metric; versions and names that change must not pile up


def content_type(accept: str) -> str:
    """The format for a request's `Accept` header: `OPENMETRICS` where it is named, else `TEXT`."""
    kinds = (each.partition(";")[0].strip() for each in accept.split(","))
    return OPENMETRICS if "application/openmetrics-text" in kinds else TEXT


def render(samples: Samples, kind: str = TEXT) -> bytes:
    """Every metric that has a sample, in the catalogue's order; `kind` is a content type above."""
    openmetrics = kind == OPENMETRICS
    lines: list[str] = []
    for name, metric in samples.catalogue.items():
        values, histograms = samples.values.get(name, {}), samples.histograms.get(name, {})
        if values or histograms:
            lines.append(_head(metric, openmetrics=openmetrics))
        series = _series(metric.name, metric.labels)
        lines += [f"{series[labels]} {_number(value)}\n" for labels, value in values.items()]
        for labels, distribution in histograms.items():
            lines += _histogram(metric, labels, distribution)
    return "".join([*lines, "# EOF\n" if openmetrics else ""]).encode()


def _histogram(metric: Metric, labels: LabelValues, distribution: Distribution) -> Iterator[str]:
    buckets = _series(f"{metric.name}_bucket", (*metric.labels, "le"))
    for bound, count in distribution.buckets():
        yield f"{buckets[*labels, bound]} {_number(count)}\n"
    for suffix, value in (("_count", sum(distribution.counts)), ("_sum", distribution.sum)):
        yield f"{_series(metric.name + suffix, metric.labels)[labels]} {_number(value)}\n"


def _head(metric: Metric, *, openmetrics: bool) -> str:
    name = metric.name
    if openmetrics and metric.type is MetricType.COUNTER:
        name = name.removesuffix("_total")
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    text = text.replace('"', r"\"") if openmetrics else text
    return f"# HELP {name} {text}\n# TYPE {name} {metric.type}\n"


def _number(value: float) -> str:
    """A value as Go writes it: above a million with an exponent, where Python would not."""
    text = repr(value + 0.0)
    if value < 1e6:
        return "-Inf" if value == -math.inf else text
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf"
    whole, point, fraction = text.partition(".")
    if not point or "e" in text:
        return text
    return f"{whole[0]}.{whole[1:]}{fraction}".rstrip("0.") + f"e+{len(whole) - 1:02d}"


class _Series(dict[LabelValues, str]):
    """Of one metric: a series' text by its labels' values."""

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        super().__init__()
        self._name, self._labels = name, labels

    def __missing__(self, values: LabelValues) -> str:
        if len(self) == _KEPT:
            self.clear()
        pairs = sorted(zip(self._labels, values, strict=True))
        text = ",".join(f'{key}="{_escape(value)}"' for key, value in pairs)
        series = self[values] = f"{self._name}{{{text}}}" if pairs else self._name
        return series


_series = lru_cache(maxsize=256)(_Series)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
