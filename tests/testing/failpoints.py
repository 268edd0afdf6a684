"""Kills a controller right before or after one of its writes, by wrapping its ports."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_serve.controller.loop import Controller
from moe_serve.rollout.ports import Leadership, Notifier, Route, Store, StoredRollout
from moe_serve.rollout.state import Entry, RolloutState
from moe_serve.rollout.weights import Weights

WRITES = (
    "state", "route.create", "route.weights", "events", "notified", "lease", "audit", "webhook",
)  # fmt: skip
NAMES = tuple(f"{write}.{side}" for write in WRITES for side in ("before", "after"))


@dataclass(slots=True)
class Failpoint:
    """Calls `kill` at the nth passage of the place `name`."""

    name: str
    kill: Callable[[], None]
    passages: int = 1

    def around(self, write: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        self._pass(f"{write}.before")
        found = call(*args, **named)
        self._pass(f"{write}.after")
        return found

    def _pass(self, place: str) -> None:
        if place != self.name:
            return
        self.passages -= 1
        if self.passages == 0:
            self.kill()


def install(controller: Controller, failpoint: Failpoint) -> None:
    """Put the failpoint around every port that writes."""
    assert failpoint.name in NAMES, f"{failpoint.name}: one of {', '.join(NAMES)}"
    controller.route = _Route(controller.route, failpoint)
    controller.store = _Store(controller.store, failpoint)
    controller.leadership = _Leadership(controller.leadership, failpoint)
    controller.notifiers = [_Notifier(each, failpoint) for each in controller.notifiers]


@dataclass(slots=True)
class _Route:
    real: Route
    failpoint: Failpoint

    def read(self, rollout: str) -> Any:
        return self.real.read(rollout)

    def create(self, weights: Weights, **named: Any) -> None:
        self.failpoint.around("route.create", self.real.create, weights, **named)

    def set_weights(self, weights: Weights, **named: Any) -> None:
        self.failpoint.around("route.weights", self.real.set_weights, weights, **named)


@dataclass(slots=True)
class _Store:
    real: Store
    failpoint: Failpoint
    state: RolloutState | None = None

    def load(self) -> StoredRollout:
        stored = self.real.load()
        self.state = stored.state
        return stored

    def save(self, state: RolloutState, notified: Mapping[str, int]) -> None:
        write = "notified" if state == self.state else "state"
        self.failpoint.around(write, self.real.save, state, notified)
        self.state = state


@dataclass(slots=True)
class _Leadership:
    real: Leadership
    failpoint: Failpoint

    def take(self) -> bool:
        return bool(self.failpoint.around("lease", self.real.take))

    @property
    def holds(self) -> bool:
        return self.real.holds

    def release(self) -> None:
        self.real.release()


@dataclass(slots=True)
class _Notifier:
    real: Notifier
    failpoint: Failpoint

    @property
    def name(self) -> str:
        return self.real.name

    def notify(self, rollout: str, entry: Entry) -> bool:
        write = self.name.partition(":")[0]
        return bool(self.failpoint.around(write, self.real.notify, rollout, entry))
