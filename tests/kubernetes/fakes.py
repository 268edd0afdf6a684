"""The cluster's part of a rollout in memory. `test_conformance.py` holds it to the real one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_serve.errors import RolloutError
from moe_serve.rollout.observation import (
    HumanRequest,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.ports import StoredRollout
from moe_serve.rollout.state import Entry, RolloutState
from moe_serve.rollout.state_json import from_json, to_json
from moe_serve.rollout.weights import Track, Weights

LEASE_SECONDS = 30


@dataclass(slots=True)
class Server:
    """What all controllers share."""

    weights: Weights | None = None
    altered: str = ""
    stamp: tuple[str, int] = ("", -1)
    ours: bool = True
    route_version: int = 0
    state: dict | None = None
    notified: Mapping[str, int] = field(default_factory=dict)
    state_version: int = 0
    human_request: HumanRequest = field(default_factory=HumanRequest)
    holder: str = ""
    lease_version: int = 0
    tracks: dict[Track, TrackStatus] = field(default_factory=dict)
    events: dict[tuple[str, int], Entry] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    fault: str = ""

    def answer(self) -> None:
        """Answer, or fail as a server that is away."""
        if self.fault:
            raise RolloutError(self.fault)


@dataclass(slots=True)
class FakeRoute:
    """A route that is only written as it was read."""

    server: Server
    _version: int = -1

    def read(self, rollout: str) -> RouteSeen | RouteAbsent | RouteForeign:
        self.server.answer()
        self._version = self.server.route_version
        if self.server.weights is None and not self.server.altered:
            return RouteAbsent()
        if not self.server.ours:
            return RouteForeign(detail="no label")
        of, stamp = self.server.stamp
        return RouteSeen(
            weights=self.server.weights,
            stamp=stamp if of == rollout else -1,
            altered=self.server.altered,
        )

    def create(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        self.server.answer()
        if self.server.weights is not None:
            raise RolloutError("409")
        self._write(weights, rollout, stamp)

    def set_weights(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        self.server.answer()
        if self._version != self.server.route_version:
            raise RolloutError("409")
        self._write(weights, rollout, stamp)

    def _write(self, weights: Weights, rollout: str, stamp: int) -> None:
        self.server.weights, self.server.stamp = weights, (rollout, stamp)
        self.server.altered = ""
        self.server.route_version += 1
        self.server.writes.append(f"route {weights}")


@dataclass(slots=True)
class FakeStore:
    """A state that is only written over what was read."""

    server: Server
    _version: int = -1

    def load(self) -> StoredRollout:
        self.server.answer()
        self._version = self.server.state_version
        if self.server.state is None:
            return StoredRollout()
        return StoredRollout(
            state=from_json(self.server.state),
            notified=self.server.notified,
            human_request=self.server.human_request,
        )

    def save(self, state: RolloutState, notified: Mapping[str, int]) -> None:
        self.server.answer()
        if self._version != self.server.state_version:
            raise RolloutError("409")
        self.server.state, self.server.notified = to_json(state), dict(notified)
        self.server.state_version += 1
        self._version = self.server.state_version
        self.server.writes.append(f"state {state.phase} {state.revision}")


@dataclass(slots=True)
class FakeLeadership:
    """A lease by the time that each sees it unchanged."""

    server: Server
    me: str
    now: list[float]
    _seen: tuple[int, float] = (-1, 0.0)
    _renewed: float | None = None

    def take(self) -> bool:
        self.server.answer()
        now = self.now[0]
        if self.server.lease_version != self._seen[0]:
            self._seen = (self.server.lease_version, now)
        if self.server.holder not in ("", self.me) and now - self._seen[1] <= LEASE_SECONDS:
            self._renewed = None
            return False
        self.server.holder = self.me
        self.server.lease_version += 1
        self._seen, self._renewed = (self.server.lease_version, now), now
        return True

    @property
    def holds(self) -> bool:
        return self._renewed is not None and self.now[0] - self._renewed < LEASE_SECONDS * 2 / 3

    def release(self) -> None:
        self.server.answer()
        if self.holds:
            self.server.holder, self._renewed = "", None
            self.server.lease_version += 1


@dataclass(slots=True)
class FakeTracks:
    """The tracks as they were put there."""

    server: Server

    def observe(self) -> Mapping[Track, TrackStatus]:
        self.server.answer()
        return self.server.tracks


@dataclass(slots=True)
class FakeEvents:
    """Events, each once."""

    server: Server
    name: str = "events"

    def notify(self, rollout: str, entry: Entry) -> bool:
        self.server.answer()
        self.server.events.setdefault((rollout, entry.revision), entry)
        return True
