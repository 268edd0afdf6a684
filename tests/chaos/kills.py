"""Kill the controller before and after each write, and see that each rollout ends as it must."""

import contextlib
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from moe_serve.judge.audit import entries
from tests.chaos.arena import Arena, until
from tests.chaos.lives import Lives
from tests.chaos.observer import Observer
from tests.chaos.servers import Judge, Webhook
from tests.testing.failpoints import NAMES

FINAL = ("done", "rolled_back")


@dataclass(slots=True, kw_only=True)
class Kills:
    """Counts of what was killed where, over as many rollouts as that takes."""

    arena: Arena
    lives: Lives
    observer: Observer
    judge: Judge
    webhook: Webhook
    each: int
    random: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    notified: int = 0

    def run(self) -> None:
        while min(self.counts[name] for name in NAMES) < self.each:
            self.one_rollout()
            sys.stderr.write(f"\r{sum(self.counts.values())} kills, {sum(self.ends.values())} ends")

    def one_rollout(self) -> None:
        """One rollout, through as many lives as it takes."""
        bad = self.random.random() < 0.3
        self.judge.verdict, self.judge.quality = "KEEP_GOING", "passed"
        self.arena.begin()
        self.observer.forget()
        with self._world(bad):
            deadline = time.monotonic() + 900
            while not self._over():
                assert time.monotonic() < deadline, f"it never ends: {self.arena.rollout()}"
                self._live()
            seen = self.arena.leader_seen()
            life = self.lives.start()  # the last one has only to tell what was not told yet
            until("it looks", lambda: self.arena.leader_seen() != seen)
            self._settle()
            life.stop()
        self._check(bad)

    def _over(self) -> bool:
        return self.arena.rollout().get("phase") in FINAL

    def _live(self) -> None:
        least = min(self.counts[name] for name in NAMES)
        name = self.random.choice([n for n in NAMES if self.counts[n] <= least + 2])
        if name.startswith("route.create") and self.random.random() < 0.7:
            self.arena.delete(self.arena.route)
        life = self.lives.start(f"{name}:{self.random.choice((1, 1, 2))}")
        began = time.monotonic()
        while not life.wait(0.05):
            if time.monotonic() - began > 8 or (self._over() and time.monotonic() - began > 3):
                life.kill()
                return
        assert life.killed, f"a controller ended by itself at {name}: {life.process.exitcode}"
        self.counts[name] += 1

    @contextlib.contextmanager
    def _world(self, bad: bool) -> Iterator[None]:
        """The judge, the pods and the gateway go on while controllers die."""
        stop = threading.Event()

        def turn() -> None:
            while not stop.is_set():
                self.arena.accept_route()
                phase = self.arena.rollout().get("phase")
                if phase == "steps":
                    self.judge.verdict = "ROLLBACK" if bad else "PROMOTE"
                if phase == "promotion" and self.arena.ready["canary"] < 4:
                    self.arena.scale("canary", self.arena.ready["canary"] + 1)
                stop.wait(0.2)

        thread = threading.Thread(target=turn)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _settle(self) -> None:
        """Until every listener was told everything."""
        for _ in range(200):
            notified = self._notified()
            if (
                self._over()
                and notified
                and min(notified.values()) == self.arena.rollout()["revision"]
            ):
                return
            time.sleep(0.1)
        raise AssertionError(f"not told everything: {self._notified()}")

    def _notified(self) -> dict[str, int]:
        import json

        found: dict[str, int] = json.loads(self.arena.api.get(self.arena.state)["data"]["notified"])
        return found if len(found) == 3 else {}

    def _check(self, bad: bool) -> None:
        state = self.arena.rollout()
        self.ends[state["phase"]] += 1
        wanted = {"gptoss-1": 100} if bad else {"gptoss-2": 100}
        assert state["phase"] == ("rolled_back" if bad else "done"), state["phase"]
        assert self.arena.weights() == wanted, self.arena.weights()
        revisions = list(range(1, state["revision"] + 1))
        audited = [
            entry["transition"]["revision"]
            for entry in entries(self.lives.audit)
            if entry.get("rollout") == state["rollout"]
        ]
        assert audited == revisions, f"the audit has {audited}"
        taken = [self.webhook.taken[f"{state['rollout']}.{number}"] for number in revisions]
        assert min(taken) >= 1, f"a message was lost: {taken}"
        self.notified, self.twice = self.notified + len(taken), self.twice + sum(taken) - len(taken)
        names = [
            event["metadata"]["name"]
            for event in self.arena.api.get(self.arena.of("events"))["items"]
            if state["rollout"] in event["metadata"]["name"]
        ]
        assert len(names) == len(revisions), f"{len(names)} Events of {len(revisions)}"
