"""What `helm test` says of servers and judges that work, and of those that do not."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moe_serve.metrics.exposition import render as exposition
from tests.charts import scripts
from tests.charts.rendering import render
from tests.exporter import workers
from tests.judge.serving import Memory, Served, serving  # noqa: F401 - a fixture

MODEL = "openai/gpt-oss-120b"
CITY = '{"city": "Paris"}'


def called(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"choices": [{"message": {"content": None, "tool_calls": [{"function": function}]}}]}


def chatted(content: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}


def completed(tokens: int = 8, finish: str = "length") -> dict[str, Any]:
    return {"usage": {"completion_tokens": tokens}, "choices": [{"finish_reason": finish}]}


def text(said: str) -> dict[str, Any]:
    return {"choices": [{"text": said}]}


RIGHT: dict[str, Any] = {
    "/v1/models": {"data": [{"id": "another"}, {"id": MODEL}]},
    "completion": completed(),
    "The capital of France is": text(" Paris."),
    "1, 2, 3, 4, 5, 6, 7,": text(" 8, 9"),
    "The chemical formula of water is": text(" H2O"),
    "The opposite of hot is": text(" cold"),
    "chat": chatted("Hello!"),
    "tool": called("get_weather", CITY),
}
SAID = [
    f"ok    models: {MODEL} is listed",
    "ok    completion: 8 tokens, finish_reason length",
    "ok    padding: aligned is in force in 1 workers, 0.0000 of the neurons lost",
    "ok    quality: 4 of 4 questions right",
    "ok    chat: an answer without raw markers",
    f"ok    tool: get_weather({CITY})",
]


def question(path: str, posted: Any) -> str:
    """Which of the answers a request asks for."""
    if posted is None:
        return path
    assert posted["model"] == MODEL
    if path == "/v1/chat/completions":
        return "tool" if "tools" in posted else "chat"
    return "completion" if "ignore_eos" in posted else str(posted["prompt"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the exporter says of one worker whose pads lose nothing."""
    folder: Path = tmp_path_factory.mktemp("records")
    writer = workers.worker(folder)
    samples = exposition(workers.collected(folder)).decode()
    writer.close()
    return samples


Helm = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def tested(exported: str, capsys: pytest.CaptureFixture[str]) -> Helm:
    """The hook's exit status and lines, where a server's answers or a value are others."""
    command = render("moe-serve").only("Pod", "-test")["spec"]["containers"][0]["command"]

    def run(
        answers: dict[str, Any] | None = None, *, key: str = "", **asked: Any
    ) -> tuple[int, list[str]]:
        known = {**RIGHT, "/metrics": exported, **(answers or {})}

        def reply(path: str, posted: Any) -> tuple[int, str | None]:
            answer = known[question(path, posted)]
            if isinstance(answer, dict):
                return 200, json.dumps(answer)
            return answer if isinstance(answer, tuple) else (200, answer)

        with scripts.serving(reply, key) as url:
            given = {**json.loads(command[3]), "server": url, "exporter": url, **asked}
            code = scripts.run(command, json.dumps(given))
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, captured.out.replace(url, "URL").splitlines()

    return run


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_a_release_that_serves_passes_every_check(tested: Helm) -> None:
    assert tested() == (0, SAID)


def test_only_what_the_values_ask_for_is_checked(tested: Helm) -> None:
    assert tested(exporter="", questions=[], chat=False) == (0, SAID[:2])


def test_the_key_is_sent_where_there_is_one(tested: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tested(key="secret") == (1, ["FAIL  models: URL/v1/models: 401 Unauthorized"])
    monkeypatch.setenv("API_KEY", "secret")
    assert tested(key="secret") == (0, SAID)


FORM = "an answer of another form: "


@pytest.mark.parametrize(
    ("asked", "answer", "said"),
    [
        ("completion", completed(tokens=5), "completion: 8 tokens were asked for, 5 came"),
        ("completion", completed(finish="stop"), "completion: finish_reason is stop, not length"),
        ("completion", (500, "no\nworker"), "completion: URL/v1/completions: 500 no worker"),
        ("completion", None, "completion: URL/v1/completions: IncompleteRead(4 bytes read, 4 more"
         " expected)"),
        ("completion", {}, f"completion: {FORM}KeyError('usage')"),
        ("completion", {"usage": None}, f"completion: {FORM}TypeError(\"'NoneType' object is not"
         " subscriptable\")"),
        ("completion", "<html>", f"completion: {FORM}JSONDecodeError('Expecting value: line 1"
         " column 1 (char 0)')"),
        ("/metrics", "", "padding: 0 of 1 workers say something"),
        ("/metrics", (404, "no page"), "padding: URL/metrics: 404 no page"),
        ("chat", chatted(None), "chat: no text; finish_reason stop"),
        ("chat", chatted("<|channel|>final"),
         "chat: the answer has raw markers: '<|channel|>final'"),
        ("tool", chatted(CITY), "tool: the model's tool call was not parsed"),
        ("tool", called("get_time", CITY), "tool: it calls get_time"),
        ("tool", called("get_weather", '{"town": 1}'), 'tool: arguments {"town": 1}'),
        ("tool", called("get_weather", "5"), f"tool: {FORM}TypeError(\"argument of type 'int' is"),
    ],
)  # fmt: skip
def test_one_wrong_answer_is_one_line_and_red(
    asked: str, answer: Any, said: str, tested: Helm
) -> None:
    code, lines = tested({asked: answer})
    wrong = [line for line in lines if line not in SAID]
    assert (code, len(lines), len(wrong)) == (1, len(SAID), 1)
    assert wrong[0].startswith(f"FAIL  {said}")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("padding_active{RANK} 1.0", "padding_active{RANK} 0.0",
         "a worker does not prove that its pads are in force"),
        ("padding_neuron_loss_ratio{RANK} 0.0", "padding_neuron_loss_ratio{RANK} 0.0667",
         "0.0667 of the neurons are lost, 0.0 allowed"),
        ("padding_neuron_loss_ratio{RANK} 0.0", "", "no worker says what its pads lose"),
        ('policy="aligned"', 'policy="upstream"', "not every worker follows policy aligned"),
    ],
)  # fmt: skip
def test_pads_that_are_not_in_force_or_lose_neurons_are_red(
    right: str, wrong: str, said: str, tested: Helm, exported: str
) -> None:
    right, wrong = (each.replace("RANK", 'rank="dp0-pp0-tp0"') for each in (right, wrong))
    assert right in exported
    code, lines = tested({"/metrics": exported.replace(f"{right}", wrong)})
    assert (code, lines) == (1, [*SAID[:2], f"FAIL  padding: {said}", *SAID[3:]])


def test_every_rank_must_say_something(tested: Helm) -> None:
    assert "FAIL  padding: 1 of 8 workers say something" in tested(ranks=8)[1]


def test_as_many_answers_must_be_right_as_the_values_say(tested: Helm) -> None:
    wrong: dict[str, Any] = {"The capital of France is": text(" Rome\n")}
    assert tested(wrong)[1][3] == "ok    quality: 3 of 4 questions right"
    wrong["The opposite of hot is"] = text("!!!")
    code, lines = tested(wrong)
    assert (code, lines[3]) == (
        1,
        "FAIL  quality: 2 right, 3 needed; 'The capital of France is': ' Rome\\n' lacks 'Paris'; "
        "'The opposite of hot is': '!!!' lacks 'cold'",
    )


def test_without_the_server_or_its_model_one_line_says_so(tested: Helm, nobody: str) -> None:
    refused = "<urlopen error [Errno 111] Connection refused>"
    assert tested(server=nobody) == (1, [f"FAIL  models: {nobody}/v1/models: {refused}"])
    code, lines = tested({"/v1/models": {"data": [{"id": "another"}]}})
    assert (code, lines) == (1, [f"FAIL  models: {MODEL} is not among ['another']"])
    code, lines = tested(exporter=nobody)
    assert lines[2] == f"FAIL  padding: {nobody}/metrics: {refused}"
    assert (code, lines[:2], lines[3:]) == (1, SAID[:2], SAID[3:])


VERDICT = {"verdict": "KEEP_GOING", "fault": None}
JUDGES: dict[str, Any] = {
    "/healthz": (200, "{}"),
    "/metrics": (200, "moe_serve_canary_source_up 1\n"),
    "/v1/verdict?detail=false": (200, json.dumps(VERDICT)),
}
JUDGED = [
    "ok   answers (/healthz 200)",
    "ok   has metrics (/metrics 200)",
    "ok   has a verdict (/v1/verdict 200 KEEP_GOING)",
    "ok   its source answers (no fault)",
]


@dataclass
class Clock:
    """The module `time`, but that time passes only in `sleep`, which calls `passes`."""

    now: float = 0.0
    passes: Callable[[], object] = int

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.passes()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setitem(sys.modules, "time", found)
    return found


@pytest.fixture
def judged(capsys: pytest.CaptureFixture[str], clock: Clock) -> Helm:
    """The hook's exit status and lines, of a judge at an address."""
    pod = render("moe-canary", "deploy/local/moe-canary.yaml").only("Pod", "-test")
    command = pod["spec"]["containers"][0]["command"]

    def run(url: str, mode: str = "judge") -> tuple[int, list[str]]:
        code = scripts.run(command, url, mode)
        captured = capsys.readouterr()
        return code, (captured.out + captured.err).replace(url, "URL").splitlines()

    return run


def test_a_judge_passes_once_its_source_has_answered(
    judged: Helm, served: Served, clock: Clock
) -> None:
    source = Memory()
    watch, client = served(source)
    url = str(client.base_url).rstrip("/")
    waits = "FAIL its source answers (not judged yet)"
    assert judged(url) == (1, [*JUDGED[:3], waits])
    assert clock.now == 150
    clock.passes = watch.judge
    promoted = JUDGED[2].replace("KEEP_GOING", "PROMOTE")
    assert judged(url) == (0, [*JUDGED[:2], promoted, JUDGED[3]])
    assert clock.now == 155
    source.fault = "Prometheus does not answer"
    watch.judge()
    fault = "FAIL its source answers (Prometheus does not answer)"
    assert judged(url) == (1, [*JUDGED[:2], promoted, fault])


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/healthz", (500, ""), [0, "answers (/healthz 500)"]),
        ("/metrics", (500, ""), [1, "has metrics (/metrics 500)"]),
        ("/metrics", (200, "up 1\n"), [1, "has metrics (/metrics 200)"]),
        ("/v1/verdict?detail=false", (503, "not\nyet"),
         [2, "has a verdict (/v1/verdict 503 not yet)"]),
        ("/v1/verdict?detail=false", (200, "[]"), [2, "has a verdict (/v1/verdict 200 [])"]),
        ("/v1/verdict?detail=false", (200, '{"verdict": "PROMOTE"}'),
         [2, 'has a verdict (/v1/verdict 200 {"verdict": "PROMOTE"})']),
        ("/v1/verdict?detail=false", (200, '{"verdict": "MAYBE", "fault": null}'),
         [2, "has a verdict (/v1/verdict 200 MAYBE)"]),
        ("/v1/verdict?detail=false", (200, '{"verdict": "KEEP_GOING", "fault": "blind"}'),
         [3, "its source answers (blind)"]),
    ],
)  # fmt: skip
def test_one_fault_of_a_judge_is_one_line_and_red(
    path: str, answer: tuple[int, str], said: list[Any], judged: Helm
) -> None:
    known = {**JUDGES, path: answer}
    at, why = said
    with scripts.serving(lambda path, _: known[path]) as url:
        code, lines = judged(url)
    # Without a verdict nothing is known of its source.
    after = JUDGED[at + 1 :] if at != 2 else []
    assert (code, lines) == (1, [*JUDGED[:at], f"FAIL {why}", *after])


def test_a_controller_has_no_verdict_to_show(judged: Helm) -> None:
    known = {path: JUDGES[path] for path in ("/healthz", "/metrics")}
    with scripts.serving(lambda path, _: known[path]) as url:
        assert judged(url, "controller") == (0, JUDGED[:2])


def test_a_judge_that_is_not_there_is_one_line(judged: Helm, nobody: str) -> None:
    refused = "<urlopen error [Errno 111] Connection refused>"
    assert judged(nobody) == (1, [f"FAIL URL/healthz: {refused}"])
    with scripts.serving(lambda path, _: (200, None)) as url:
        cut = "IncompleteRead(4 bytes read, 4 more expected)"
        assert judged(url) == (1, [f"FAIL URL/healthz: {cut}"])
