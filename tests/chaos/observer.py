"""Watches a rollout from outside, with its own reading of every version of route and state."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from moe_serve.kubernetes.api import ClusterError
from tests.chaos.arena import Arena, backends

_ORDER = ("pending", "quality", "steps", "promotion", "watch", "done", "rollback", "rolled_back")


@dataclass(slots=True)
class Observer:
    """What was seen, and every rule that was broken."""

    arena: Arena
    allowed: list[dict[str, int]]
    judge: Any
    broken: list[str] = field(default_factory=list)
    routes: int = 0
    states: int = 0
    last_rank: tuple[int, int] = (0, 0)
    last_revision: int = 0
    promoted_on: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    lines: list[str] = field(default_factory=list)

    def start(self) -> None:
        for kind, name, take in (
            ("httproutes", "gptoss", self._route),
            ("configmaps", "gptoss-rollout", self._state),
        ):
            threading.Thread(target=self._follow, args=(kind, name, take), daemon=True).start()

    def forget(self) -> None:
        """Another rollout begins."""
        self.last_rank, self.last_revision, self.promoted_on = (0, 0), 0, ""

    def _follow(self, kind: str, name: str, take: Any) -> None:
        path, query = self.arena.of(kind), {"fieldSelector": f"metadata.name={name}"}
        version = ""
        while not self.stop.is_set():
            try:
                version = (
                    version or self.arena.api.get(path, **query)["metadata"]["resourceVersion"]
                )
                for change in self.arena.api.watch(path, 60, resourceVersion=version, **query):
                    if change["type"] == "ERROR":
                        self.broken.append(f"the observer lost sight of {kind}")
                        version = ""
                        break
                    version = change["object"]["metadata"]["resourceVersion"]
                    if change["type"] in ("ADDED", "MODIFIED"):
                        take(change["object"])
            except ClusterError:
                self.stop.wait(0.2)

    def _route(self, found: dict[str, Any]) -> None:
        self.routes += 1
        weights = backends(found)
        unexpected_pods = found["metadata"].get("annotations", {}).get("chaos") == "stranger"
        if weights not in self.allowed and not unexpected_pods:
            self.broken.append(f"weights that are not the plan's: {weights}")
        more = sum(share for name, share in weights.items() if name == "gptoss-2")
        if more > 10 and not self.promoted_on and not unexpected_pods:
            self.broken.append(f"canary at {more} before it was promoted")

    def _state(self, found: dict[str, Any]) -> None:
        self.states += 1
        state = json.loads(found["data"]["state"])
        phase = state["hold"]["resume"] if state["hold"] else state["phase"]
        rank = (_ORDER.index(phase), state["step"])
        if rank < self.last_rank:
            self.broken.append(f"backwards: {self.last_rank} to {rank}")
        if state["revision"] < self.last_revision:
            self.broken.append(f"revision {self.last_revision} to {state['revision']}")
        if phase == "promotion" and not self.promoted_on:
            self.promoted_on = f"{self.judge.verdict}/{self.judge.quality}"
            if not state["evidence"] or self.promoted_on != "PROMOTE/passed":
                self.broken.append(f"promoted on {self.promoted_on}")
        self.last_rank, self.last_revision = rank, state["revision"]
