"""The controller's threads: one that dies fails the health check and holds the rollout."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from moe_serve.controller.judges import RemoteJudge
from moe_serve.controller.load import PrometheusLoad
from moe_serve.controller.notifiers import WebhookNotifier, hook
from moe_serve.controller.run import Runner, Thread
from moe_serve.controller.web import Status
from moe_serve.errors import SourceError, UsageError
from moe_serve.kubernetes.api import ClusterError
from moe_serve.kubernetes.watched import Watched
from moe_serve.rollout.observation import JudgeUnavailable
from moe_serve.rollout.state import initial
from tests.controller.test_around import ENTRY
from tests.controller.test_loop import PLAN, Bench


@dataclass
class Dies:
    """A worker that raises when it is told to."""

    now: threading.Event = field(default_factory=threading.Event)

    def run(self, stop: threading.Event) -> None:
        self.now.wait()
        raise KeyError("port")


@contextmanager
def running(threads: list[Thread]) -> Iterator[tuple[Runner, str]]:
    bench = Bench()
    status = Status(plan=PLAN, active=True, stale_seconds=60, clock=lambda: 0.0)
    runner = Runner(controller=bench.controller(), status=status, every=0.05)
    port: list[int] = []
    listening = threading.Event()

    def listen(number: int) -> None:
        port.append(number)
        listening.set()

    runner.on_listening = listen
    main = threading.Thread(target=runner.run, args=(threads, ("127.0.0.1", 0)))
    main.start()
    try:
        assert listening.wait(10)
        yield runner, f"http://127.0.0.1:{port[0]}"
    finally:
        runner.end()
        main.join(10)
    assert not main.is_alive()


def _until(url: str, code: int) -> httpx.Response:
    pause = threading.Event()
    with httpx.Client(trust_env=False) as client:
        for _ in range(200):
            found = client.get(f"{url}/healthz")
            if found.status_code == code:
                return found
            pause.wait(0.02)
    raise AssertionError(f"/healthz stays {found.status_code}: {found.text}")


def test_worker_that_dies_fails_the_health_check_while_the_loop_goes_on() -> None:
    dies = Dies()
    with running([dies]) as (runner, url):
        assert _until(url, 200).text == "ok\n"
        assert "moe_serve_rollout_worker_failed 0.0\n" in runner.status.metrics()
        dies.now.set()
        assert _until(url, 503).text == "Dies ended: KeyError: 'port'\n"
        assert "moe_serve_rollout_worker_failed 1.0\n" in runner.status.metrics()
        reconciles, pause = runner.status.reconciles, threading.Event()
        for _ in range(200):
            if runner.status.reconciles > reconciles:
                return
            pause.wait(0.02)
        raise AssertionError("the loop stands still")


def test_objects_whose_watch_ended_are_not_known() -> None:
    class Ends(BaseException):
        """No `Exception`, so that nothing catches it."""

    class Api:
        def get(self, path: str, **query: str) -> dict[str, object]:
            return {"metadata": {"resourceVersion": "1"}, "items": []}

        def watch(self, path: str, seconds: int, **query: str) -> Iterator[dict[str, object]]:
            yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "2"}}}
            raise Ends

    watched = Watched(api=Api(), path="/pods", query={}, on_change=lambda: None)  # type: ignore[arg-type]
    with pytest.raises(Ends):
        watched.run(threading.Event())
    with pytest.raises(ClusterError, match="watch of /pods: its thread ended"):
        watched.objects()


@pytest.mark.parametrize(
    "error", [httpx.InvalidURL("port"), RecursionError(), UnicodeError("idna")]
)
def test_judge_whose_request_fails_in_any_way_is_unavailable(error: Exception) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        raise error

    client = httpx.Client(transport=httpx.MockTransport(reply))
    judge = RemoteJudge(
        url="http://judge", every=1, fresh_seconds=60, on_result=lambda: None, client=client
    )
    judge.ask()
    found = judge.judge_result(initial(PLAN, 0.0))
    assert isinstance(found, JudgeUnavailable)
    assert f"http://judge does not answer ({type(error).__name__})" in found.reason


def test_message_that_fails_in_any_way_is_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception | httpx.Response] = [httpx.InvalidURL("secret"), httpx.Response(200)]

    def reply(request: httpx.Request) -> httpx.Response:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    client = httpx.Client(transport=httpx.MockTransport(reply))
    notifier = WebhookNotifier(
        name="webhook:slack", url="http://x", plan="p", slack=False, client=client
    )
    assert not notifier.notify("r", ENTRY)
    assert not notifier._send(("r", ENTRY.revision), ENTRY)
    assert notifier._send(("r", ENTRY.revision), ENTRY)
    assert "InvalidURL" in caplog.text and "secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://hooks:port/secret", "https://a..b/secret", "http:///secret"]
)
def test_webhook_address_that_cannot_be_posted_to_is_refused(tmp_path: Path, url: str) -> None:
    (tmp_path / "hook").write_text(url)
    with pytest.raises(UsageError, match="--slack-file") as caught:
        hook("--slack-file", tmp_path / "hook", "gptoss", slack=True)
    assert "secret" not in str(caught.value)


def test_load_is_not_known_once_its_reading_is_stale() -> None:
    now = [0.0]
    load = PrometheusLoad(ask=lambda: 3.0, every=10, clock=lambda: now[0])
    assert (load.pods(), load.age_seconds()) == (None, None)
    load.reconcile()
    now[0] += load.stale_seconds
    assert (load.pods(), load.age_seconds()) == (3.0, load.stale_seconds)
    now[0] += 1
    assert (load.pods(), load.age_seconds()) == (None, load.stale_seconds + 1)


def test_load_whose_thread_died_is_forgotten_after_its_last_reading() -> None:
    now, answers = [0.0], [3.0]
    load = PrometheusLoad(ask=answers.pop, every=0, clock=lambda: now[0])
    with pytest.raises(IndexError):
        load.run(threading.Event())
    now[0] += 1e6
    assert load.pods() is None


def test_age_of_a_load_counts_from_its_last_number() -> None:
    now, answers = [0.0], [3.0]

    def ask() -> float:
        if answers:
            return answers.pop()
        raise SourceError("gone")

    load = PrometheusLoad(ask=ask, every=10, clock=lambda: now[0])
    load.reconcile()
    now[0] += 5
    load.reconcile()
    assert (load.pods(), load.age_seconds()) == (None, 5.0)
