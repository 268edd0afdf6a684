"""What the controller needs of the world. Adapters do not subclass these; mypy checks the shape."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from moe_serve.rollout.observation import (
    HumanRequest,
    JudgeResult,
    JudgeUnavailable,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.state import Entry, RolloutState
from moe_serve.rollout.weights import Track, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRollout:
    """What is kept: the state, up to which revision each listener was told, a person's wishes."""

    state: RolloutState | None = None
    notified: Mapping[str, int] = field(default_factory=dict)
    human_request: HumanRequest = field(default_factory=HumanRequest)


class Route(Protocol):
    """The route, which is only ever written as it was read last. Errors are RolloutErrors."""

    def read(self, rollout: str) -> RouteSeen | RouteAbsent | RouteForeign:
        """The route as it is now."""

    def create(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Make it."""

    def set_weights(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Write over what was read last, and nothing newer."""


class Tracks(Protocol):
    """The tracks' pods."""

    def observe(self) -> Mapping[Track, TrackStatus]:
        """Every track now."""


class Store(Protocol):
    """Where the state is kept; written only over what was loaded or saved last."""

    def load(self) -> StoredRollout:
        """What is kept now."""

    def save(self, state: RolloutState, notified: Mapping[str, int]) -> None:
        """Keep this."""


class Leadership(Protocol):
    """Whether this controller is the one that acts."""

    def take(self) -> bool:
        """Renew it, or take it if it is free."""

    @property
    def holds(self) -> bool:
        """It is ours for some time yet; asked right before each write."""

    def release(self) -> None:
        """Let another take over at once."""


class Judge(Protocol):
    """Who says whether the canary is better."""

    def judge_result(self, state: RolloutState) -> JudgeResult | JudgeUnavailable:
        """What it says now, at once: it judges in its own time."""


class TrafficLoad(Protocol):
    """How much traffic there is."""

    def pods(self) -> float | None:
        """The whole traffic, in pods kept fully busy; None if it is not known, or stale."""

    def age_seconds(self) -> float | None:
        """Seconds since it was measured last; None if it never was."""


class WarningSink(Protocol):
    """Who is told of a look that failed before there was a state to write that down in."""

    def warn(self, text: str, at: float) -> None:
        """Tell it, with its time since the epoch, or raise a RolloutError."""


class Notifier(Protocol):
    """Somebody who is told each line of the history once."""

    name: str

    def notify(self, rollout: str, entry: Entry) -> bool:
        """True once it was told; False if that is still on its way."""
