"""Shadow mode: the cluster is read for real, and what would be written stays in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moe_serve.rollout.observation import HumanRequest, RouteAbsent, RouteForeign, RouteSeen
from moe_serve.rollout.ports import Route, StoredRollout
from moe_serve.rollout.state import RolloutState
from moe_serve.rollout.weights import Weights


@dataclass(slots=True)
class ShadowRoute:
    """A route of which only the first reading is real."""

    real: Route
    _imagined: RouteSeen | None = None
    _rollout: str = ""

    def read(self, rollout: str) -> RouteSeen | RouteAbsent | RouteForeign:
        """What would be there."""
        if self._imagined is None:
            return self.real.read(rollout)
        if rollout == self._rollout:
            return self._imagined
        return RouteSeen(weights=self._imagined.weights, stamp=-1)

    def create(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """As if it were made."""
        self.set_weights(weights, rollout=rollout, stamp=stamp)

    def set_weights(self, weights: Weights, *, rollout: str, stamp: int) -> None:
        """As if it were written."""
        self._imagined, self._rollout = RouteSeen(weights=weights, stamp=stamp), rollout


@dataclass(slots=True)
class ShadowStore:
    """A state that ends with the process."""

    kept: StoredRollout = field(default_factory=StoredRollout)
    human_request: Callable[[], HumanRequest] = HumanRequest

    def load(self) -> StoredRollout:
        """What was kept."""
        return StoredRollout(
            state=self.kept.state, notified=self.kept.notified, human_request=self.human_request()
        )

    def save(self, state: RolloutState, notified: Mapping[str, int]) -> None:
        """Keep it."""
        self.kept = StoredRollout(state=state, notified=dict(notified))


@dataclass(slots=True)
class ShadowLeadership:
    """A shadow leads itself; there may be many."""

    holds: bool = True

    def take(self) -> bool:
        """Always."""
        return True

    def release(self) -> None:
        """Nothing to release."""
