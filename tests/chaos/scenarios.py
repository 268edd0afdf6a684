"""What else may go wrong while a rollout runs: one function each, which says what it measured."""

import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from moe_serve.kubernetes.api import Patch
from tests.chaos.arena import Arena, until
from tests.chaos.lives import Lives
from tests.chaos.observer import Observer
from tests.chaos.servers import Judge, Line

HOLD = {
    "steps": [
        {"canary": 5, "baseline": 5, "hold_minutes": 0},
        {"canary": 10, "baseline": 10, "hold_minutes": 60, "needs": "promote"},
    ]
}
_IN_STEPS = {"gptoss-1": 80, "gptoss-1b": 10, "gptoss-2": 10}


@dataclass(slots=True, kw_only=True)
class Stage:
    """What a scenario plays on."""

    arena: Arena
    lives: Lives
    observer: Observer
    judge: Judge
    line: Line
    outage_seconds: float

    def begin(self, **parts: object) -> None:
        self.judge.verdict, self.judge.quality, self.judge.mode = "KEEP_GOING", "passed", ""
        self.arena.begin(**{**HOLD, **parts})
        self.observer.forget()

    def at_the_last_step(self) -> None:
        def there() -> bool:
            self.arena.accept_route()
            return self.arena.weights() == _IN_STEPS

        until("the last step's weights", there)

    def stays(self, seconds: float) -> None:
        """Neither promoted nor rolled back: the weights do not move."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.arena.weights() == _IN_STEPS, self.arena.weights()
            time.sleep(0.25)


def trip(stage: Stage) -> str:
    """From the judge's ROLLBACK to weight 0."""
    took = []
    for _ in range(10):
        stage.begin()
        life = stage.lives.start()
        stage.at_the_last_step()
        stage.judge.verdict = "ROLLBACK"
        took.append(until("weight 0", lambda: stage.arena.weights() == {"gptoss-1": 100}))
        life.kill()
    assert max(took) < 1 + 2, took
    return f"10 trips: median {statistics.median(took):.2f} s, worst {max(took):.2f} s, poll 1 s"


def pods_deleted(stage: Stage) -> str:
    """The canary's only pod goes."""
    took = []
    stage.begin()
    life = stage.lives.start(every=10)
    for _ in range(10):
        stage.at_the_last_step()
        stage.arena.scale("canary", 0)
        took.append(until("weight 0", lambda: stage.arena.weights() == {"gptoss-1": 100}))
        stage.arena.scale("canary", 1)
    life.kill()
    return (
        f"10 times: weight 0 after median {statistics.median(took):.2f} s, worst "
        f"{max(took):.2f} s, with a poll of 10 s: endpoints are watched"
    )


def two_controllers(stage: Stage) -> str:
    """Two at once; the leader is frozen for longer than its lease, and thawed."""
    stage.begin()
    first = stage.lives.start(identity="chaos-0")
    stage.at_the_last_step()
    second = stage.lives.start(identity="chaos-1")
    time.sleep(3)
    first.signal(signal.SIGSTOP)
    stage.judge.verdict = "ROLLBACK"
    took = until(
        "the second rolls back", lambda: stage.arena.weights() == {"gptoss-1": 100}, seconds=90
    )
    first.signal(signal.SIGCONT)
    time.sleep(5)
    assert stage.arena.rollout()["phase"] == "rolled_back"
    assert stage.arena.weights() == {"gptoss-1": 100}
    gone = second.stop()
    first.kill()
    return (
        f"the other took over and rolled back {took:.0f} s after the freeze; SIGTERM {gone:.1f} s"
    )


def conflicting_writer(stage: Stage) -> str:
    """Somebody else writes the route."""
    stage.begin()
    life = stage.lives.start()
    stage.at_the_last_step()
    for weight in (50, 0, 99):
        refs = [
            {"name": "gptoss-1", "port": 8000, "weight": 100 - weight},
            {"name": "gptoss-2", "port": 8000, "weight": weight},
        ]
        matches = [{"path": {"type": "PathPrefix", "value": "/"}}]
        body = {
            "metadata": {"annotations": {"chaos": "stranger"}},
            "spec": {"rules": [{"matches": matches, "backendRefs": refs}]},
        }
        stage.arena.api.patch(stage.arena.route, body, Patch.MERGE)
        until("it is held for drift", lambda: stage.arena.rollout()["phase"] == "held", 15)
        version = stage.arena.api.get(stage.arena.route)["metadata"]["resourceVersion"]
        time.sleep(3)
        now = stage.arena.api.get(stage.arena.route)["metadata"]["resourceVersion"]
        assert now == version, "the route was written while somebody else held it"
        hold = stage.arena.rollout()["hold"]
        stage.arena.wish(approve=str(hold["revision"]))
        stage.at_the_last_step()
        stage.arena.api.patch(
            stage.arena.route, {"metadata": {"annotations": {"chaos": None}}}, Patch.MERGE
        )
    life.kill()
    return "3 of 3 reported, left alone for 3 s, and taken back once a person approved"


def route_deleted(stage: Stage) -> str:
    """The route goes, at each step."""
    stage.begin()
    life = stage.lives.start()
    took = []
    for _ in range(10):
        stage.at_the_last_step()
        stage.arena.delete(stage.arena.route)
        took.append(until("it is there again", lambda: stage.arena.weights() == _IN_STEPS))
    life.kill()
    return f"10 times made again with its weights, worst {max(took):.2f} s, poll 1 s"


def judge_misbehaves(stage: Stage) -> str:
    """No word, late words, words that say nothing."""
    stage.begin(patience={"blind_minutes": 0.3})
    life = stage.lives.start()
    stage.at_the_last_step()
    for mode in ("away", "slow", "empty", "error"):
        stage.judge.mode = mode
        stage.stays(6)
        stage.judge.mode = ""
        until("it goes on", lambda: not stage.arena.rollout()["pending_hold"])
    stage.judge.mode = "away"
    took = until("it is held", lambda: stage.arena.rollout()["phase"] == "held")
    stage.stays(3)
    life.kill()
    return (
        "away, slow (8 s), empty, 503, 6 s each: the weights stayed; away for "
        f"{took:.0f} s (18 s allowed): held for a person"
    )


def api_down(stage: Stage) -> str:
    """The API server does not answer."""
    stage.begin()
    life = stage.lives.start()
    stage.at_the_last_step()
    stage.line.cut()
    stage.judge.verdict = "ROLLBACK"
    stage.stays(stage.outage_seconds)
    assert not life.ended(), "the controller ended"
    stage.line.mend()
    took = until("weight 0", lambda: stage.arena.weights() == {"gptoss-1": 100}, 60)
    life.kill()
    return (
        f"away for {stage.outage_seconds:.0f} s: nothing moved; the ROLLBACK of that time was "
        f"carried out {took:.1f} s after it was back"
    )


SCENARIOS: dict[str, Callable[[Stage], str]] = {
    "from trip to weight 0": trip,
    "canary pods deleted": pods_deleted,
    "two controllers, the leader frozen": two_controllers,
    "a conflicting writer": conflicting_writer,
    "route deleted": route_deleted,
    "judge away, slow, empty, failing": judge_misbehaves,
    "API server away": api_down,
}
