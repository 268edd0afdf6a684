"""What the probe learns of an arm's pods is what the judge learns of them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx
import pytest

from moe_serve.errors import MoeServeError
from moe_serve.probe.exporter import ExporterClient, Traffic
from moe_serve.sources.scraped import Scraper, Target
from moe_serve.telemetry.record import BatchPhase
from tests.exporter.workers import STEP, WINDOW
from tests.testing.exporters import exporting, saying, stepped, worker

FLAG = "--canary-exporter"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def told(url: str) -> dict[str, str]:
    return asyncio.run(ExporterClient(FLAG, url).facts())


def traffic(url: str) -> Traffic:
    return asyncio.run(ExporterClient(FLAG, url).traffic())


def test_the_facts_are_those_that_the_judge_reads(tmp_path: Path) -> None:
    for rank in range(2):
        worker(tmp_path, tp=rank, policy="rounded")
    with exporting(tmp_path) as url:
        found = told(url)
        scraper = Scraper(targets=[Target(arm="canary", pod="p", url=url)])
        scraper.poll()
    assert found == scraper.history(0, 1e12).canary.facts
    assert (found["policy"], found["worker_config_digest"]) == ("rounded", "0123456789abcdef")


def test_the_busiest_batch_size_is_by_time_and_without_prefill(tmp_path: Path) -> None:
    writer = worker(tmp_path)
    for _ in range(30):
        stepped(writer, BatchPhase.DECODE, 4, 0.01)
    for _ in range(10):
        stepped(writer, BatchPhase.DECODE, 32, 0.09)
    for _ in range(10):
        stepped(writer, BatchPhase.MIXED, 64, 1)
    with exporting(tmp_path) as url:
        assert traffic(url) == Traffic(exporter=url, batch=32, busy_share=0.75)


def test_forward_passes_tell_it_where_steps_have_no_time(tmp_path: Path) -> None:
    writer = worker(tmp_path)
    writer.add(WINDOW, 5_000_000, tokens=64)
    with exporting(tmp_path) as url:
        assert traffic(url).batch == 64
        # Whole steps are the better word, where there are any.
        writer.add(STEP, 5_000_000, tokens=64)
        with pytest.raises(MoeServeError, match="no batch without prefill"):
            traffic(url)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda _: None, "has timed no batch without prefill, so traffic has no size"),
        (
            lambda writer: stepped(writer, BatchPhase.MIXED, 8, 1),
            "has timed no batch without prefill",
        ),
        (lambda writer: stepped(writer, BatchPhase.DECODE, 0, 1), "too large to have a size"),
    ],
)
def test_traffic_without_a_size_is_said(
    made: Callable[..., None], says: str, tmp_path: Path
) -> None:
    made(worker(tmp_path))
    with exporting(tmp_path) as url, pytest.raises(MoeServeError) as caught:
        traffic(url)
    assert str(caught.value).startswith(f"{FLAG} {url}: ")
    assert says in str(caught.value)


Opened = Callable[[Path], AbstractContextManager[str]]


def _empty(folder: Path) -> AbstractContextManager[str]:
    return exporting(folder)


def _without_digest(folder: Path) -> AbstractContextManager[str]:
    worker(folder, worker_config_digest=None)
    return exporting(folder)


def _two_ranks(folder: Path) -> AbstractContextManager[str]:
    for rank, digest in enumerate(("a" * 16, "b" * 16)):
        worker(folder, tp=rank, worker_config_digest=digest)
    return exporting(folder)


@pytest.mark.parametrize(
    ("opened", "says"),
    [
        (_empty, "tells of no moe-serve worker"),
        (_without_digest, "has no worker_config_digest"),
        (_two_ranks, f"worker_config_digest is {'a' * 16} | {'b' * 16}: its workers are not alike"),
        (lambda _: saying("<html>"), "tells of no moe-serve worker: no exporter's (port 9400)"),
        (lambda _: saying("vllm:request_success_total 3\n"), "tells of no moe-serve worker"),
        (lambda _: saying("moe_serve_config_info{} x\n"), "line 1: 'x' is no number"),
        (lambda _: saying("", code=404), "HTTP 404; an exporter's is http://HOST:9400/metrics"),
    ],
)
def test_what_is_no_exporter_of_one_configuration_is_one_line(
    opened: Opened, says: str, tmp_path: Path
) -> None:
    with opened(tmp_path) as url, pytest.raises(MoeServeError) as caught:
        told(url)
    assert str(caught.value).startswith(f"{FLAG} {url}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1/metrics", "no answer"),
        ("127.0.0.1:9400", "as http://HOST:9400/metrics"),
        ("nonsense", "as http://HOST:9400/metrics"),
        ("http://127.0.0.1:port/metrics", "is no URL"),
        ("file://host/etc/passwd", "as http://HOST:9400/metrics"),
    ],
)
def test_an_address_without_an_exporter_is_one_line(url: str, says: str) -> None:
    with pytest.raises(MoeServeError) as caught:
        told(url)
    assert str(caught.value).startswith(FLAG)
    assert says in str(caught.value)


@pytest.mark.parametrize("change", [{"worker_config_digest": "b" * 16}, {"policy": "rounded"}])
def test_two_pods_behind_one_address_are_found_out(
    change: dict[str, str], tmp_path: Path, stack: ExitStack
) -> None:
    worker(tmp_path / "one")
    worker(tmp_path / "other", **change)
    pods = [stack.enter_context(exporting(tmp_path / name)) for name in ("one", "other")]
    both = stack.enter_context(saying(*(httpx.get(pod, trust_env=False).text for pod in pods)))
    with pytest.raises(
        MoeServeError, match="there are pods behind it that are not alike"
    ) as caught:
        told(both)
    [[name, value]] = change.items()
    assert f"{name} is once " in str(caught.value)
    assert value in str(caught.value)


def test_an_address_needs_no_path(tmp_path: Path) -> None:
    worker(tmp_path)
    with exporting(tmp_path) as url:
        for short in (url.removesuffix("metrics"), url.removesuffix("/metrics")):
            assert ExporterClient(FLAG, short).url == url
            assert told(short) == told(url)


def test_pods_that_are_alike_may_share_an_address(tmp_path: Path, stack: ExitStack) -> None:
    worker(tmp_path / "one")
    writer = worker(tmp_path / "other")
    stepped(writer, BatchPhase.DECODE, 8, 1)
    pods = [stack.enter_context(exporting(tmp_path / name)) for name in ("one", "other")]
    both = stack.enter_context(saying(*(httpx.get(pod, trust_env=False).text for pod in pods)))
    assert told(both) == told(pods[0])


def test_a_password_in_the_address_is_used_and_never_told() -> None:
    with pytest.raises(MoeServeError) as caught:
        told("http://somebody:secret@127.0.0.1:1/metrics")
    assert "secret" not in str(caught.value)
    assert ExporterClient(FLAG, "http://a:secret@h/metrics").url == "http://h/metrics"
    with pytest.raises(MoeServeError) as caught:
        ExporterClient(FLAG, "a:secret@h/metrics")
    assert "secret" not in str(caught.value)
