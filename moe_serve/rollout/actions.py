"""What a decision asks for. Each is safe to do twice."""

from dataclasses import dataclass

from moe_serve.rollout.state import RolloutState
from moe_serve.rollout.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRoute:
    """Make the dedicated route, which is not there."""

    weights: Weights
    stamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetWeights:
    """Give the route that was seen, unchanged since, these weights."""

    weights: Weights
    stamp: int


Action = CreateRoute | SetWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The state to write down first, and what to do then."""

    state: RolloutState
    actions: tuple[Action, ...] = ()
