"""Three sources of one history, and what each says when it cannot give one."""

import http.server
import io
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from moe_serve.canary.analysis.comparison import Registration, examine
from moe_serve.canary.analysis.estimate import Estimate
from moe_serve.canary.analysis.history import History
from moe_serve.canary.analysis.noise import Spread
from moe_serve.canary.analysis.series import CellKind
from moe_serve.canary.quality.result import NoQuality
from moe_serve.canary.sources.prometheus import Prometheus
from moe_serve.canary.sources.recorded import RecordedFile, read, write
from moe_serve.canary.sources.scraped import Scraper, Target
from moe_serve.canary.sources.streams import NAMES, Streams
from moe_serve.errors import SourceError
from tests.canary.histories import START, Fleet, streams

END = START + 4 * 3600
LABELS = 'track="stable",pod="a",rank="0",bucket="8",phase="decode"'


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("history") / "fleet.om"
    with path.open("w", encoding="utf-8") as out:
        write(streams(Fleet(restart="canary-1")), out)
    return path


def same(one: History, other: History) -> None:
    assert one.cells == other.cells
    for left, right in ((one.stable, other.stable), (one.canary, other.canary)):
        assert (left.name, left.facts, left.requests) == (right.name, right.facts, right.requests)
        assert [pod.pod for pod in left.pods] == [pod.pod for pod in right.pods]
        for a, b in zip(left.pods, right.pods, strict=True):
            np.testing.assert_array_equal(a.times, b.times)
            np.testing.assert_array_equal(a.lives, b.lives)
            np.testing.assert_array_equal(a.counts, b.counts)
            np.testing.assert_array_equal(a.busy, b.busy)


def test_a_recorded_fleet_gives_its_true_gain(recorded: Path) -> None:
    source = RecordedFile(path=recorded)
    start, end = source.span()
    history = source.history(start, end)
    assert {cell.kind for cell in history.cells} == set(CellKind)
    assert history.canary.facts == {
        "policy": "aligned",
        "vllm": "0.32.0",
        "config_digest": "0123456789abcdef",
    }
    found = examine(history, Registration(spread=Spread()), NoQuality(reason="none"))
    assert isinstance(found.step, Estimate)
    assert found.step.lo < np.log(1.08) < found.step.hi
    assert found.observed.canary.void == {"process restarted": 1}


class Api(http.server.BaseHTTPRequestHandler):
    """As much of Prometheus's API as one query needs, over samples in memory."""

    store: ClassVar[Streams]
    faults: ClassVar[list[int]]
    seen: ClassVar[list[str]]

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        form = urllib.parse.parse_qs(self.rfile.read(length).decode())
        self.seen.append(self.headers.get("Authorization", ""))
        if self.faults:
            self.send_response(self.faults.pop(0))
            self.end_headers()
            self.wfile.write(b"oh no")
            return
        until = float(form["time"][0])
        width = float(form["query"][0].rpartition("[")[2].removesuffix("ms]")) / 1000
        result = []
        for stream in self.store:
            pairs = zip(stream.times, stream.values, strict=True)
            values = [[t, repr(v)] for t, v in pairs if until - width < t <= until]
            if values:
                metric = {"__name__": stream.name, **stream.labels}
                result.append({"metric": metric, "values": values})
        body = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api(recorded: Path) -> Iterator[tuple[str, type[Api]]]:
    class Mine(Api):
        store = read(recorded.read_text("utf-8").splitlines(keepends=True), "x", 0, 9e12)
        faults: ClassVar[list[int]] = []
        seen: ClassVar[list[str]] = []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Mine
    server.shutdown()
    server.server_close()


def test_prometheus_gives_the_same_history(api: tuple[str, type[Api]], recorded: Path) -> None:
    found = Prometheus(url=api[0]).history(START, END)
    same(found, RecordedFile(path=recorded).history(START, END))


def test_a_server_that_stumbles_is_asked_again(api: tuple[str, type[Api]]) -> None:
    pauses: list[float] = []
    api[1].faults += [503, 500]
    Prometheus(url=api[0], pause=pauses.append).history(START, START + 600)
    assert pauses == [1.0, 2.0]


def test_a_server_that_keeps_failing_is_named(api: tuple[str, type[Api]]) -> None:
    api[1].faults += [500] * 3
    with pytest.raises(SourceError, match=r"^Prometheus http://127.*: HTTP 500 \(3 attempts\)$"):
        Prometheus(url=api[0], pause=lambda _: None).history(START, START + 600)


def test_secrets_come_from_files_and_appear_nowhere(
    api: tuple[str, type[Api]], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    api[1].faults += [401]
    with pytest.raises(SourceError) as error:
        Prometheus(url=api[0], bearer_token_file=token).history(START, START + 600)
    assert api[1].seen == ["Bearer s3cret"]
    assert "s3cret" not in str(error.value)
    assert "HTTP 401" in str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no.such.host.invalid"])
def test_a_server_that_is_not_there_is_named(url: str) -> None:
    with pytest.raises(SourceError, match="attempts"):
        Prometheus(url=url, pause=lambda _: None).history(START, END)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no series with track='stable' or 'canary'"),
        ("up 1 1780000000\n", "no series with track"),
        (f"moe_serve_steps_timed_total{{{LABELS}}} 1\n", "line 1"),
        (f"# TYPE x gauge\nmoe_serve_steps_timed_total{{{LABELS}}} one 1\n", "line 2"),
    ],
)
def test_a_file_that_is_no_history_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.om"
    path.write_text(text)
    with pytest.raises(SourceError, match=message):
        RecordedFile(path=path).history(START - 1, END)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no\.om: No such file"):
        RecordedFile(path=tmp_path / "no.om").history(0, 1)


def test_one_arm_alone_is_no_comparison(tmp_path: Path) -> None:
    path = tmp_path / "half.om"
    with path.open("w", encoding="utf-8") as out:
        write(streams(Fleet(silent="canary")), out)
    history = RecordedFile(path=path).history(START, END)
    found = examine(history, Registration(), NoQuality(reason="none"))
    assert found.judgement.verdict.value == "INVALID"
    assert "canary has no pod with data" in found.judgement.reason


def test_what_is_written_is_what_was_read(recorded: Path) -> None:
    lines = recorded.read_text("utf-8").splitlines(keepends=True)
    out = io.StringIO()
    write(read(lines, "x", 0, 9e12), out)
    assert out.getvalue() == "".join(lines)


class Exporter(http.server.BaseHTTPRequestHandler):
    """Counts one step more at each scrape."""

    steps = 0

    def do_GET(self) -> None:
        type(self).steps += 1
        body = (
            f'{NAMES[0]}{{rank="0",bucket="8",phase="decode"}} {100 * self.steps}\n'
            f'{NAMES[1]}{{rank="0",bucket="8",phase="decode"}} {self.steps}\n'
            'other_total{rank="0"} 7\n'
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_exporters_are_asked_directly_and_a_dead_one_is_a_gap() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    now = iter(np.arange(1000.0, 2000.0, 5.0))
    targets = [
        Target(arm="stable", pod="a", url=url),
        Target(arm="canary", pod="b", url="http://127.0.0.1:1/metrics"),
    ]
    scraper = Scraper(targets=targets, clock=lambda: float(next(now)))
    for _ in range(3):
        scraper.poll()
    server.shutdown()
    server.server_close()
    history = scraper.history(1000, 1100)
    assert [len(pod.times) for pod in history.stable.pods] == [3]
    assert np.diff(history.stable.pods[0].counts[:, 0]).tolist() == [100, 100]
    assert history.canary.pods == ()
    assert list(scraper.faults) == ["http://127.0.0.1:1/metrics"]


def test_no_exporter_at_all_is_an_error_that_names_it() -> None:
    scraper = Scraper(targets=[Target(arm="stable", pod="a", url="http://127.0.0.1:1/metrics")])
    scraper.poll()
    with pytest.raises(SourceError, match=r"exporter http://127\.0\.0\.1:1/metrics: ConnectError"):
        scraper.history(0, 1)
