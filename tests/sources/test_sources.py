"""Three sources of one history, and what each says when it cannot give one."""

import hashlib
import http.server
import io
import json
import re
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest

from moe_serve.analysis.comparison import examine
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.history import History
from moe_serve.analysis.noise import PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.series import CellKind
from moe_serve.errors import SourceError
from moe_serve.quality.result import NoQuality
from moe_serve.sources.assemble import ArmSelector, assemble
from moe_serve.sources.names import NAMES
from moe_serve.sources.prometheus import Prometheus
from moe_serve.sources.recorded import RecordedFile, read, write
from moe_serve.sources.scraped import Scraper, Target
from moe_serve.sources.streams import Streams
from tests.testing.histories import START, Fleet, streams

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
            np.testing.assert_array_equal(a.counter_generation, b.counter_generation)
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
        "worker_config_digest": "0123456789abcdef",
    }
    found = examine(history, AnalysisPlan(pod_variation=PodVariation()), NoQuality(reason="none"))
    assert isinstance(found.estimates.step, Estimate)
    assert found.estimates.step.lo < np.log(1.08) < found.estimates.step.hi
    assert found.observations.canary.void == {"process restarted": 1}


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
        parts = re.fullmatch(
            r'\{__name__=~"([^"]+)",track=~"([^"]+)"\}\[(\d+)ms\](?: @ ([0-9.]+))?',
            form["query"][0],
        )
        assert parts, form["query"]
        names, arms, width = parts[1], parts[2], int(parts[3]) / 1000
        until = float(parts[4] or form["time"][0])
        result = []
        for stream in self.store:
            if not re.fullmatch(names, stream.name) or not re.fullmatch(
                arms, stream.labels["track"]
            ):
                continue
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


def told(history: History) -> dict[str, tuple[int, int]]:
    assert history.provenance is not None
    queries = history.provenance.queries(history.start, history.end)
    return {query.subject: (query.series, query.samples) for query in queries}


def test_what_prometheus_was_asked_gives_the_same_samples_when_it_is_pasted(
    api: tuple[str, type[Api]], recorded: Path
) -> None:
    history = Prometheus(url=api[0]).history(START, END).until(START + 3600)
    assert history.provenance is not None
    assert history.provenance.source == f"Prometheus {api[0]}/"
    for query in history.provenance.queries(history.start, history.end):
        # Its query page sends no time but now.
        body = {"query": query.expression, "time": "1999999999"}
        answer = httpx.post(f"{api[0]}/api/v1/query", data=body).json()["data"]["result"]
        samples = sum(len(series["values"]) for series in answer)
        assert (query.series, query.samples) == (len(answer), samples)
    found = told(history)
    assert found["step"] == (24, found["step"][1])
    assert found["step"][1] > 24 * 230
    assert found["ttft"] == (0, 0)
    assert found == told(RecordedFile(path=recorded).history(START, END).until(START + 3600))


def test_what_a_recorded_file_was_asked_gives_the_same_lines_in_a_shell(
    recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "it's one.om"
    other = 'moe_serve_steps_timed_total{backtrack="stable",track="old"} 1 1780000100.0\n'
    path.write_text(other + recorded.read_text("utf-8"), "utf-8")
    history = RecordedFile(path=path).history(START + 600, START + 1200)
    assert history.provenance is not None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert history.provenance.source == f"recorded file {path} (sha256 {digest})"
    for query in history.provenance.queries(history.start, history.end):
        shell = subprocess.run(
            ["bash", "-c", query.expression], capture_output=True, text=True, check=True
        )
        lines = shell.stdout.splitlines()
        assert len(lines) == query.samples
        assert len({line.rsplit(" ", 2)[0] for line in lines}) == query.series


@pytest.mark.parametrize(
    ("value", "another"), [("gpt.oss", "gpt-oss"), ('a"b', "a"), ("a\\d", "a1"), ("(x|y)", "x")]
)
def test_an_arm_is_asked_for_by_its_very_name(value: str, another: str) -> None:
    pattern = ArmSelector(stable=value, canary="canary").pattern
    assert re.fullmatch(pattern, value)
    assert re.fullmatch(pattern, "canary")
    assert not re.fullmatch(pattern, another)
    source = Prometheus(url="http://p", arms=ArmSelector(stable=value, canary="canary"))
    literal = source._range(["up"], 0, 1).partition("track=~")[2].rpartition("[")[0][:-1]
    assert json.loads(literal) == pattern  # PromQL's escapes are those of JSON here


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
    found = examine(history, AnalysisPlan(), NoQuality(reason="none"))
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
    provenance = scraper.history(1000, 1100).provenance
    assert provenance is not None
    step = provenance.queries(1000, 1100)[0]
    assert (step.subject.value, step.series, step.samples) == ("step", 2, 6)
    assert f"stable={url}, canary=http://127.0.0.1:1/metrics " in step.source
    shell = subprocess.run(
        ["bash", "-c", step.expression], capture_output=True, text=True, check=False
    )
    assert [line.partition("{")[0] for line in shell.stdout.splitlines()] == [*NAMES[:2]]
    server.shutdown()
    server.server_close()
    history = scraper.history(1000, 1100)
    assert [len(pod.times) for pod in history.stable.pods] == [3]
    assert np.diff(history.stable.pods[0].counts[:, 0]).tolist() == [100, 100]
    assert history.canary.pods == ()
    assert list(scraper.faults) == ["http://127.0.0.1:1/metrics"]


def test_what_exporters_were_asked_shows_no_secret() -> None:
    url = "http://me:s3cret@h:9400/metrics?token=s3cret"
    scraper = Scraper(targets=[Target(arm="stable", pod="a", url=url)], keep_seconds=1e12)
    scraper._keep(scraper.targets[0], 1.0, f'{NAMES[0]}{{rank="0"}} 1\n')
    provenance = scraper.history(0, 2).provenance
    assert provenance is not None
    told = [(query.source, query.expression) for query in provenance.queries(0, 2)]
    assert "stable=http://h:9400/metrics " in told[0][0]
    assert "s3cret" not in str(told)


def test_no_exporter_at_all_is_an_error_that_names_it() -> None:
    scraper = Scraper(targets=[Target(arm="stable", pod="a", url="http://127.0.0.1:1/metrics")])
    scraper.poll()
    with pytest.raises(SourceError, match=r"exporter http://127\.0\.0\.1:1/metrics: ConnectError"):
        scraper.history(0, 1)


def test_a_malformed_number_is_a_fault_of_one_look_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = f'{NAMES[0]}{{rank="0",bucket="8",phase="decode"}}'
    scraper = Scraper(targets=[Target(arm="stable", pod="a", url="http://a/metrics")])
    looks = iter([(1000.0, f"{key} 5x\n", ""), (1015.0, f"{key} 6\n", "")])
    monkeypatch.setattr(Scraper, "_ask", lambda *_: next(looks))
    scraper.keep_seconds = 1e12
    scraper.poll()
    assert scraper.faults == {"http://a/metrics": "line 1: '5x' is no number"}
    scraper.poll()
    assert scraper.faults == {}
    assert len(scraper.history(0, 2000).stable.pods[0].times) == 1


SERIES = {"metric": {"__name__": NAMES[0], "track": "stable"}, "values": [[1.0, "1"]]}


@pytest.mark.parametrize(
    "data",
    [
        "absent",
        None,
        {"resultType": "matrix"},
        {"resultType": "matrix", "result": [{**SERIES, "metric": {"track": "stable"}}]},
        {"resultType": "matrix", "result": [{**SERIES, "values": [[1.0, "x"]]}]},
        {"resultType": "matrix", "result": [{**SERIES, "values": None}]},
        {"resultType": "matrix", "result": [3]},
    ],
)
def test_a_success_without_its_data_is_one_line(
    data: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"status": "success"} if data == "absent" else {"status": "success", "data": data}
    monkeypatch.setattr(Prometheus, "_ask", lambda *_: body)
    with pytest.raises(SourceError, match="says success, with data of another form") as error:
        Prometheus(url="http://p").history(0, 600)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [None, {"resultType": "vector", "result": [{"value": [1, "x"]}]}])
def test_a_number_that_is_none_of_prometheus_is_one_line(
    data: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prometheus, "_ask", lambda *_: {"status": "success", "data": data})
    with pytest.raises(SourceError, match="of another form"):
        Prometheus(url="http://p").number("up")


@pytest.mark.parametrize("secret", ["g\u00e4heim".encode(), b"\xff\xfe", b"two\nlines"])
def test_a_token_that_no_header_can_hold_is_one_line_without_it(
    secret: bytes, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_bytes(secret)
    with pytest.raises(SourceError) as error:
        Prometheus(url="http://127.0.0.1:1", bearer_token_file=token).history(0, 600)
    assert "ASCII" in str(error.value) or "UTF-8" in str(error.value)
    assert "heim" not in str(error.value)
    assert "\n" not in str(error.value)


def test_samples_that_are_no_numbers_are_void_and_named() -> None:
    lines = [
        f"{NAMES[0]}{{{LABELS}}} 1 1.0\n",
        *(f'vllm:request_success_total{{track="stable"}} {v} {t}\n' for t, v in
          enumerate(("1", "NaN", "+Inf", "5"), start=1)),
        f"moe_serve_padding_lost_neurons{{{LABELS}}} NaN 1.0\n",
        f"moe_serve_padding_live_neurons{{{LABELS}}} 2880 1.0\n",
        f"moe_serve_moe_layers{{{LABELS}}} +Inf 1.0\n",
    ]  # fmt: skip
    history = assemble(read(lines, "x", 0, 9), ArmSelector(), 0, 9, "x")
    stable = history.stable
    assert (stable.requests, stable.neurons, stable.moe_layers) == (4, None, None)
    assert "void, as they are no finite numbers: 1 of moe_serve_moe_layers" in history.origin
    assert "2 of vllm:request_success_total" in history.origin


def test_a_bucket_without_an_edge_is_one_line() -> None:
    name = "vllm:time_to_first_token_seconds_bucket"
    lines = [f'{name}{{track="stable",le="abc"}} 1 1.0\n']
    with pytest.raises(SourceError, match="le='abc' is no bucket's edge"):
        assemble(read(lines, "x", 0, 9), ArmSelector(), 0, 9, "x")
