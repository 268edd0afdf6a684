"""What stands around the loop: words, judges, listeners, failpoints, the web, the screen."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from moe_serve.analysis.noise import PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.verdict import Verdict
from moe_serve.controller.judge_json import judge_result_of
from moe_serve.controller.judges import LocalJudge, RemoteJudge
from moe_serve.controller.load import PrometheusLoad
from moe_serve.controller.loop import ReconcileResult
from moe_serve.controller.notifiers import AuditNotifier, WebhookNotifier, hook
from moe_serve.controller.state_client import ask
from moe_serve.controller.status_text import screen, to_json
from moe_serve.controller.web import Status, serve
from moe_serve.errors import SourceError, UsageError
from moe_serve.judge.audit import Audit, entries
from moe_serve.metrics.catalogue import ROLLOUT
from moe_serve.quality.finding import finding
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.rollout.holds import hold
from moe_serve.rollout.observation import JudgeResult, JudgeUnavailable
from moe_serve.rollout.state import (
    Entry,
    EntryKind,
    HoldReason,
    PendingHold,
    RolloutPhase,
    RolloutState,
    initial,
)
from moe_serve.sources.assemble import ArmSelector, assemble
from moe_serve.sources.prometheus import Prometheus
from tests.rollout.world import World, plan_of
from tests.testing.histories import START, Fleet, streams
from tests.testing.probed import facts, probed
from tests.testing.verdicts import SAME

PLAN = plan_of()
BODY = {
    "verdict": "PROMOTE", "reason": "faster", "quality": {"outcome": "passed", "reason": "same"},
    "judged_at": 100.0, "fault": None, "window": {"start": 5.0, "end": 100.0},
    "analysis_plan_digest": "sha256:r",
}  # fmt: skip
FAILED = ReconcileResult(
    is_leader=False, state=None, again=False, error="the API server does not answer"
)
ENTRY = Entry(revision=3, at=9.0, kind=EntryKind.PHASE, title="held", detail="blind: no word")


def _judge_result(**parts: Any) -> JudgeResult | JudgeUnavailable:
    return judge_result_of({**BODY, **parts}, now=110.0, fresh_seconds=60.0)


def test_judge_result_has_verdict_and_evidence() -> None:
    assert _judge_result() == JudgeResult(
        verdict=Verdict.PROMOTE, reason="faster",
        quality=QualityOutcome.PASSED, quality_reason="same",
        judged_at=100.0, since=5.0, rules="sha256:r",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"fault": "Prometheus does not answer"}, "Prometheus does not answer"),
        ({"judged_at": 49.0}, "it judged too long ago"),
        ({"verdict": "MAYBE"}, "cannot be read"),
        ({"quality": None}, "cannot be read"),
        ({"judged_at": None}, "cannot be read"),
    ],
)
def test_what_is_old_faulty_or_unreadable_is_no_word(parts: dict[str, Any], reason: str) -> None:
    found = _judge_result(**parts)
    assert isinstance(found, JudgeUnavailable)
    assert reason in found.reason


def _asked(answer: httpx.Response | Exception) -> RemoteJudge:
    def reply(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = httpx.Client(transport=httpx.MockTransport(reply))
    return RemoteJudge(
        url="http://judge", every=1, fresh_seconds=1e12, on_result=lambda: None, client=client
    )


@pytest.mark.parametrize(
    "answer", [httpx.Response(503), httpx.Response(200, text="<html>"), httpx.ConnectError("gone")]
)
def test_a_judge_that_does_not_answer_has_no_word(answer: httpx.Response | Exception) -> None:
    judge, state = _asked(answer), initial(PLAN, 0.0)
    judge.ask()
    found = judge.judge_result(state)
    assert isinstance(found, JudgeUnavailable)
    assert "http://judge does not answer" in found.reason


def test_a_judge_that_answers_is_heard_and_wakes_the_loop_when_it_changes_its_mind() -> None:
    woken = []
    judge = _asked(httpx.Response(200, json=BODY))
    judge.on_result = lambda: woken.append(1)
    judge.ask()
    judge.ask()
    found = judge.judge_result(initial(PLAN, 0.0))
    assert isinstance(found, JudgeResult) and found.verdict is Verdict.PROMOTE
    assert len(woken) == 1


class Memory:
    """A source over samples in memory."""

    def history(self, start: float, end: float) -> Any:
        return assemble(streams(Fleet()), ArmSelector(), start, end, "memory")


class Gone:
    """A source that does not answer."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def history(self, start: float, end: float) -> Any:
        raise self.fault


WAITS = replace(initial(PLAN, START), phase=RolloutPhase.QUALITY)


def test_a_judge_in_the_process_goes_on_with_its_comparison_after_a_restart() -> None:
    rules = AnalysisPlan(pod_variation=PodVariation(), under_test=("policy",))

    def judging() -> LocalJudge:
        return LocalJudge(
            source=Memory(), analysis_plan=rules, quality=lambda: SAME, every=1,
            on_result=lambda: None, clock=lambda: START + 4 * 3600,
        )  # fmt: skip

    first, dark = judging(), WAITS
    first.clock = lambda: START + 3 * 3600
    first.judge_result(dark)
    first.clock = judging().clock
    first.learn()
    before = first.judge_result(dark)
    assert isinstance(before, JudgeResult)
    assert (before.verdict, before.quality) == (Verdict.KEEP_GOING, QualityOutcome.PASSED)
    steps = replace(dark, phase=RolloutPhase.STEPS, phase_since=START)
    assert isinstance(first.judge_result(steps), JudgeUnavailable)
    assert first._watch is not None
    first._watch.judge()
    found = first.judge_result(steps)
    assert isinstance(found, JudgeResult) and found.since == START
    second = judging()
    later = replace(steps, step=1, phase_since=START + 7200, comparison_since=START)
    second.judge_result(later)
    assert second._watch is not None
    second._watch.judge()
    assert second.judge_result(later) == found


class Waiting:
    """A judge of answers of the usual fleet, at a time of the test's own."""

    def __init__(self, outcome: QualityOutcome = QualityOutcome.PASSED) -> None:
        self.now, self.woken, self.notified = START + 600.0, 0, facts()
        self.judge = LocalJudge(
            source=Memory(), analysis_plan=AnalysisPlan(), every=0.01, on_result=self.wake,
            quality=lambda: finding(probed(outcome, known=self.notified)), clock=lambda: self.now,
        )  # fmt: skip

    def wake(self) -> None:
        self.woken += 1

    def learn(self, state: RolloutState = WAITS) -> None:
        """As `run` does: once the wait is long enough."""
        self.says(state)
        self.now += 61
        self.judge.learn()

    def says(self, state: RolloutState = WAITS) -> tuple[QualityOutcome | None, str]:
        found = self.judge.judge_result(state)
        if isinstance(found, JudgeUnavailable):
            return None, found.reason
        return found.quality, found.quality_reason


@pytest.mark.parametrize("outcome", [QualityOutcome.PASSED, QualityOutcome.FAILED])
def test_before_the_steps_answers_count_for_the_pods_that_are_there(
    outcome: QualityOutcome,
) -> None:
    waiting = Waiting(outcome)
    quality, reason = waiting.says()
    assert quality is None
    assert "not known: nobody was asked yet (" in reason
    waiting.judge.learn()
    assert waiting.says()[0] is None
    waiting.learn()
    assert waiting.says()[0] is outcome
    waiting.notified[1]["worker_config_digest"] = "another"
    quality, reason = waiting.says()
    assert quality is None
    assert "are of other pods: canary had worker_config_digest another then" in reason


@pytest.mark.parametrize("fault", [SourceError("prometheus is gone"), KeyError("__name__")])
def test_pods_that_nobody_can_ask_for_are_not_known(fault: Exception) -> None:
    waiting = Waiting()
    waiting.learn()
    waiting.judge.source = Gone(fault)
    waiting.judge.learn()
    assert isinstance(waiting.judge.judge_result(WAITS), JudgeUnavailable)
    assert str(fault) in waiting.says()[1]
    # Another wait does not begin with the fault of this one.
    assert "nobody was asked yet" in waiting.says(replace(WAITS, phase_since=START + 1))[1]


def test_what_was_learned_of_pods_counts_for_that_wait_and_while_it_is_fresh() -> None:
    waiting = Waiting()
    waiting.learn()
    assert waiting.says()[0] is QualityOutcome.PASSED
    waiting.now += 901
    quality, reason = waiting.says()
    assert quality is None
    assert "nobody could be asked for too long" in reason
    waiting.now -= 1200
    assert waiting.says()[0] is None


@pytest.mark.parametrize("outcome", [QualityOutcome.PASSED, QualityOutcome.FAILED])
def test_after_a_hold_the_pods_are_asked_anew_and_in_it_answers_that_differ_count(
    outcome: QualityOutcome,
) -> None:
    waiting = Waiting(outcome)
    waiting.learn()
    pending_hold = PendingHold(reason=HoldReason.DEADLINE, detail="late", since=waiting.now)
    held = hold(WAITS, pending_hold, waiting.now)
    assert waiting.says(held)[0] is None
    waiting.learn(held)
    assert waiting.says(held)[0] is outcome
    # As a hold's end does: the time that the phase began is put off by how long it was held.
    on_again = replace(WAITS, phase_since=WAITS.phase_since + 61)
    assert waiting.says(on_again)[0] is None
    waiting.learn(on_again)
    assert waiting.says(on_again)[0] is outcome


def test_pods_are_asked_for_in_the_background_once_the_wait_is_long_enough() -> None:
    waiting, stop = Waiting(), threading.Event()
    thread = threading.Thread(target=waiting.judge.run, args=(stop,))
    waiting.says()
    thread.start()
    stop.wait(0.2)
    assert waiting.woken == 0
    waiting.now += 61
    while waiting.woken < 2:
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert waiting.says()[0] is QualityOutcome.PASSED


def test_a_rollout_that_begins_anew_asks_anew() -> None:
    waiting = Waiting()
    waiting.judge.judge_result(replace(WAITS, phase=RolloutPhase.STEPS))
    assert waiting.judge._watch is not None
    waiting.says()
    assert waiting.judge._watch is None


def test_before_the_steps_a_judge_in_the_process_speaks_of_the_answers_alone() -> None:
    judge = LocalJudge(
        source=Memory(), analysis_plan=AnalysisPlan(), every=1, on_result=lambda: None,
        quality=lambda: NoQuality(reason="no comparison of answers yet"),
    )  # fmt: skip
    found = judge.judge_result(initial(PLAN, START))
    assert isinstance(found, JudgeResult)
    assert (found.quality, found.quality_reason) == (None, "no comparison of answers yet")


@pytest.mark.parametrize(
    ("result", "pods"),
    [
        ({"resultType": "vector", "result": [{"metric": {}, "value": [1, "3.5"]}]}, 3.5),
        ({"resultType": "scalar", "result": [1, "2"]}, 2.0),
        ({"resultType": "vector", "result": []}, None),
        ({"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "2"]}]}, None),
        ({"resultType": "vector", "result": [{"metric": {}, "value": [1, "NaN"]}]}, None),
        ({"resultType": "vector", "result": [{"metric": {}, "value": [1, "-1"]}]}, None),
    ],
)
def test_a_load_that_is_no_one_number_is_not_known(
    result: dict[str, Any], pods: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Prometheus(url="http://prometheus")
    body = {"status": "success", "data": result}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    monkeypatch.setattr(
        Prometheus, "_client", lambda self: httpx.Client(transport=transport, base_url=self.url)
    )
    load = PrometheusLoad(ask=lambda: asked.number("sum(x)"), every=1)
    load.reconcile()
    assert load.pods() == pods


def test_a_load_whose_source_fails_is_forgotten() -> None:
    answers: list[float] = [3.0]

    def ask() -> float:
        if not answers:
            raise SourceError("gone")
        return answers.pop()

    load = PrometheusLoad(ask=ask, every=1)
    load.reconcile()
    assert load.pods() == 3.0
    load.reconcile()
    assert load.pods() is None


def test_a_transition_is_audited_once_however_often_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        notified = AuditNotifier(Audit(path))
        assert notified.notify("r-1", ENTRY) and notified.notify("r-1", ENTRY)
    lines = list(entries(path))
    assert [line["transition"]["title"] for line in lines] == ["held"]


class Receiver:
    """Takes POSTs, after refusing some."""

    def __init__(self, refusals: int) -> None:
        self.left, self.taken = refusals, []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.left -= 1
                if receiver.left < 0:
                    receiver.taken.append((self.headers["Idempotency-Key"], body))
                self.send_response(200 if receiver.left < 0 else 500)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _sent(hooked: WebhookNotifier, receiver: Receiver) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=hooked.run, args=(stop,))
    thread.start()
    pause = threading.Event()
    for _ in range(200):
        if hooked.notify("r-1", ENTRY):
            break
        pause.wait(0.05)
    stop.set()
    thread.join()
    receiver.close()


def test_a_message_that_was_refused_is_sent_again_with_its_key_until_it_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(refusals=1)
    _sent(
        WebhookNotifier(name="webhook:generic", url=receiver.url, plan="gptoss", slack=False),
        receiver,
    )
    assert receiver.taken == [
        (
            "r-1.3",
            {
                "plan": "gptoss", "rollout": "r-1", "revision": 3, "at": 9.0, "kind": "phase",
                "title": "held", "detail": "blind: no word",
            },
        )
    ]  # fmt: skip
    assert "does not take a message" in caplog.text
    assert "secret" not in caplog.text


def test_slack_gets_a_text_for_phases_and_nothing_for_the_rest() -> None:
    receiver = Receiver(refusals=0)
    slack = WebhookNotifier(name="webhook:slack", url=receiver.url, plan="gptoss", slack=True)
    assert slack.notify("r-1", replace(ENTRY, kind=EntryKind.WEIGHTS))
    _sent(slack, receiver)
    assert receiver.taken == [("r-1.3", {"text": "*gptoss*: held\nblind: no word"})]


@pytest.mark.parametrize("slack", [True, False])
def test_every_message_links_to_the_page_that_was_named(tmp_path: Path, slack: bool) -> None:
    receiver, page = Receiver(refusals=0), "https://judge.example/"
    (tmp_path / "hook").write_text(receiver.url)
    _sent(hook("--hook", tmp_path / "hook", "gptoss", slack=slack, page=page), receiver)
    [(_, body)] = receiver.taken
    assert (body["text"].splitlines()[-1] if slack else body["page"]) == page


@pytest.mark.parametrize("text", ["", "ftp://x", "http://a\nhttp://b"])
def test_a_file_without_one_address_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "hook").write_text(text)
    with pytest.raises(UsageError, match="one line with an http") as caught:
        hook("--slack-file", tmp_path / "hook", "gptoss", slack=True)
    assert not text or text not in str(caught.value)


def _parsed(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f'{{{key}="{value}"}}' for key, value in sample.labels.items()): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _status(now: list[float], *, result: ReconcileResult | None) -> Status:
    status = Status(plan=PLAN, active=True, stale_seconds=60, clock=lambda: now[0])
    if result:
        status.note(result)
    return status


def test_the_metrics_say_phase_weights_verdict_and_trouble() -> None:
    world = World(plan=PLAN, quality=QualityOutcome.PASSED)
    world.ready = {track: part.replicas for track, part in PLAN.tracks.items()}
    world.settle()
    result = ReconcileResult(is_leader=True, state=world.state, again=False)
    found = _parsed(_status([7.0], result=result).metrics())
    assert found['moe_serve_rollout_phase{phase="steps"}'] == 1
    assert found['moe_serve_rollout_phase{phase="done"}'] == 0
    assert found['moe_serve_rollout_weight_ratio{track="canary"}'] == 0.05
    assert found['moe_serve_rollout_verdict{verdict="KEEP_GOING"}'] == 1
    assert found['moe_serve_rollout_hold_reason{reason="drift"}'] == 0
    roles = {key: value for key, value in found.items() if "track_info" in key}
    assert roles == {
        'moe_serve_rollout_track_info{pod_label="gptoss-1"}{track="stable"}': 1,
        'moe_serve_rollout_track_info{pod_label="gptoss-1b"}{track="baseline"}': 1,
        'moe_serve_rollout_track_info{pod_label="gptoss-2"}{track="canary"}': 1,
    }
    assert found["moe_serve_rollout_weights_in_force"] == 1
    assert found["moe_serve_rollout_last_reconcile_timestamp_seconds"] == 7.0


def test_looks_that_fail_are_a_trouble_though_there_is_no_state() -> None:
    found = _parsed(_status([7.0], result=FAILED).metrics())
    assert found['moe_serve_rollout_hold_reason{reason="fault"}'] == 1
    assert not any("phase" in name for name in found)


def test_metrics_and_their_catalogue_name_the_same() -> None:
    result = ReconcileResult(
        is_leader=True, state=initial(PLAN, 0.0), again=False, load_age_seconds=1.0
    )
    families = text_string_to_metric_families(_status([7.0], result=result).metrics())
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): family.samples[0].labels
        for family in families
    }
    assert {name: set(labels) for name, labels in shown.items()} == {
        metric.name: set(metric.labels) for metric in ROLLOUT.values()
    }


@pytest.mark.parametrize("state", [None, initial(PLAN, 0.0)])
def test_a_shadow_is_asked_where_it_stands(state: RolloutState | None) -> None:
    result = replace(FAILED, state=state)
    server = serve(_status([0.0], result=result), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        if state:
            assert ask(url) == (state, FAILED.error)
        else:
            with pytest.raises(UsageError, match=f"no state yet: {FAILED.error}"):
                ask(url)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(UsageError, match="no controller answers there"):
        ask(url)


def test_it_is_healthy_while_the_loop_turns_even_if_every_look_fails() -> None:
    now = [100.0]
    status = _status(now, result=FAILED)
    server = serve(status, "127.0.0.1", 0)
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"{url}/healthz").status_code == 200
            assert "moe_serve_rollout_errors_total 1" in client.get(f"{url}/metrics").text
            now[0] += 61
            assert client.get(f"{url}/healthz").status_code == 503
            assert client.get(f"{url}/").status_code == 404
        with pytest.raises(UsageError, match="Address already in use"):
            serve(status, "127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def test_the_screen_says_where_it_stands_and_what_it_waits_for() -> None:
    world = World(plan=PLAN, quality=QualityOutcome.PASSED, verdict=Verdict.PROMOTE)
    world.ready = {track: part.replicas for track, part in PLAN.tracks.items()}
    for world.now in (0.0, 600.0, 2400.0):
        world.settle()
    lines = screen(PLAN, world.state, 2400.0 + 3900).splitlines()
    assert lines[1:4] == [
        "phase     promotion, for 1 h 5 min",
        "weights   stable 75/canary 25 (in force)",
        "verdict   PROMOTE: because PROMOTE",
    ]
    assert "in Git    gptoss-2: replicas 1 -> 4 (promoted; the judged pods stay)" in lines
    assert to_json(PLAN, world.state)["weights"] == {"stable": 75, "baseline": 0, "canary": 25}


def test_the_screen_tells_of_a_trouble_beside_a_hold_and_of_a_look_that_failed() -> None:
    fault = PendingHold(reason=HoldReason.FAULT, since=0.0, detail="403")
    state = replace(initial(PLAN, 0.0), pending_hold=fault, waiting_for="a person")
    lines = screen(PLAN, state, 1.0, FAILED.error).splitlines()
    assert lines[4:7] == ["waits for a person", "trouble   fault: 403", f"fault     {FAILED.error}"]
    once = replace(state, waiting_for="403")
    assert not {"reason", "fault"} & {
        line.split(" ")[0] for line in screen(PLAN, once, 1.0, "403").splitlines()
    }


def test_the_screen_of_another_plan_says_so() -> None:
    assert "it began with" in screen(plan_of(watch_hours=1), initial(PLAN, 0.0), 1.0)
