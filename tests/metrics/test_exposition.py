"""The text of samples, against prometheus-client's own writers and parsers."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from moe_serve.metrics.catalogue import EXPORTER, JUDGE, ROLLOUT, Catalogue, Metric, MetricType
from moe_serve.metrics.exposition import OPENMETRICS, content_type, render
from moe_serve.metrics.samples import Distribution, Samples
from tests.exporter import workers
from tests.testing.exposition import WRITERS, library_text


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    writer = workers.worker(tmp_path, policy='a "quoted"\\ name\nof two lines')
    found = workers.collected(tmp_path)
    writer.close()
    return found


@pytest.mark.parametrize("kind", WRITERS)
def test_text_of_a_scrape_is_the_librarys(kind: str, samples: Samples) -> None:
    assert render(samples, kind) == library_text(samples, kind)


def test_both_formats_of_a_scrape_parse_to_the_catalogue(samples: Samples) -> None:
    families = list(parse(render(samples).decode()))
    strict = list(parse_openmetrics(render(samples, OPENMETRICS).decode()))
    known = {metric.name.removesuffix("_total") for metric in EXPORTER.values()}

    assert {family.name for family in families} <= known
    assert {family.name for family in strict} == {family.name for family in families}
    assert {family.type for family in strict} == {"counter", "gauge", "histogram"}


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.sampled_from([math.inf, -math.inf, math.nan, 999999.5, 1e6, 123456789.25, 1e16, 5e-324]),
).filter(lambda value: value != 0 or math.copysign(1, value) > 0)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TRIAL: Catalogue = {
    "gauge": Metric(
        name="a_gauge", type=MetricType.GAUGE, labels=("z", "a"), help='says "so"\\\nand more'
    ),
    "counter": Metric(name="a_counter_total", type=MetricType.COUNTER, labels=(), help=""),
    "histogram": Metric(name="h", type=MetricType.HISTOGRAM, labels=("x",), help="h"),
}


@pytest.mark.parametrize("kind", WRITERS)
@given(
    gauges=st.dictionaries(st.tuples(TEXTS, TEXTS), NUMBERS, max_size=3),
    counter=st.floats(0, 1e300) | st.integers(0, 2**63),
    counts=st.tuples(*[st.integers(0, 2**40)] * 3),
    total=st.floats(0, 1e300),
)
def test_text_of_any_samples_is_the_librarys(
    kind: str,
    gauges: dict[tuple[str, str], float],
    counter: float,
    counts: tuple[int, ...],
    total: float,
) -> None:
    samples = Samples(TRIAL)
    for labels, value in gauges.items():
        samples.put("gauge", value, *labels)
    samples.put("counter", counter)
    samples.histograms["histogram"]["x",] = Distribution(
        bounds=("0.5", "1.0", "+Inf"), counts=counts, sum=total
    )

    assert render(samples, kind) == library_text(samples, kind)
    assert samples.count() == len(gauges) + 1 + 5


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/plain;version=0.0.4;q=0.9",
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        # Prometheus 3's own.
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
        "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
        "application/json",
    ],
)
def test_format_for_an_accept_header_is_the_librarys(accept: str) -> None:
    _, theirs = choose_encoder(accept)

    assert content_type(accept).split(";")[:2] == theirs.split(";")[:2]


def test_catalogues_share_no_metric_and_follow_conventions() -> None:
    metrics = [metric for each in (EXPORTER, JUDGE, ROLLOUT) for metric in each.values()]

    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert metric.help.endswith((".", "1", "; 1."))
        assert metric.name.endswith("_total") == (metric.type is MetricType.COUNTER), metric
        assert not set(metric.labels) & {"pod", "namespace", "job", "instance"}
