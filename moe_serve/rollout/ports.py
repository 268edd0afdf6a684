"""What the controller needs of the world. Adapters do not subclass these; mypy checks the shape."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from moe_serve.rollout.observation import (
    ArmSeen,
    NoWord,
    Person,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    Word,
)
from moe_serve.rollout.state import Entry, State
from moe_serve.rollout.weights import Arm, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is kept: the state, up to which revision each listener was told, a person's wishes."""

    state: State | None = None
    told: Mapping[str, int] = field(default_factory=dict)
    person: Person = field(default_factory=Person)


class Route(Protocol):
    """The route, which is only ever written as it was read last. Errors are RolloutErrors."""

    def read(self, rollout: str) -> RouteSeen | RouteAbsent | RouteForeign:
        """The route as it is now."""

    def create(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Make it."""

    def set_weights(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """Write over what was read last, and nothing newer."""


class Arms(Protocol):
    """The arms' pods."""

    def seen(self) -> Mapping[Arm, ArmSeen]:
        """Every arm now."""


class Store(Protocol):
    """Where the state is kept; written only over what was loaded or saved last."""

    def load(self) -> Stored:
        """What is kept now."""

    def save(self, state: State, told: Mapping[str, int]) -> None:
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

    def word(self, state: State) -> Word | NoWord:
        """What it says now, at once: it judges in its own time."""


class Load(Protocol):
    """How much traffic there is."""

    def pods(self) -> float | None:
        """The whole traffic, in pods kept fully busy; None if it is not known."""


class Alarm(Protocol):
    """Who is told of a look that failed before there was a state to write that down in."""

    def warn(self, text: str, at: float) -> None:
        """Tell it, with its time since the epoch, or raise a RolloutError."""


class Listener(Protocol):
    """Somebody who is told each line of the history once."""

    name: str

    def tell(self, rollout: str, entry: Entry) -> bool:
        """True once it was told; False if that is still on its way."""
