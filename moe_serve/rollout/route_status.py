"""The route against the state: in force, still to be written, or changed by somebody else."""

from dataclasses import dataclass
from typing import assert_never

from moe_serve.rollout.actions import Action, CreateRoute, SetWeights
from moe_serve.rollout.observation import (
    Observation,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
)
from moe_serve.rollout.plan import Owner, RolloutPlan
from moe_serve.rollout.state import RolloutPhase, RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStatus:
    """`drift` says what somebody else did; empty if nobody did."""

    in_force: bool
    drift: str = ""


def route_status(plan: RolloutPlan, state: RolloutState, observation: Observation) -> RouteStatus:
    """How the route that was seen stands to the state."""
    match observation.route:
        case RouteAbsent():
            return RouteStatus(in_force=False)
        case RouteForeign(detail=detail):
            return RouteStatus(in_force=False, drift=detail)
        case RouteSeen() as route if route.weights == state.weights(plan) and not route.altered:
            return RouteStatus(in_force=True)
        case RouteSeen() as route:
            return RouteStatus(in_force=False, drift=_drift(plan, state, route))
        case _:
            assert_never(observation.route)


def act_on(plan: RolloutPlan, state: RolloutState, observation: Observation) -> tuple[Action, ...]:
    """The write that is missing, if any: never over a stranger's, except to roll back what this
    rollout did.
    """
    weights, stamp = state.weights(plan), state.weight_revision
    if isinstance(observation.route, RouteAbsent):
        dedicated = plan.route.owner is Owner.DEDICATED
        return (CreateRoute(weights=weights, stamp=stamp),) if dedicated else ()
    found = route_status(plan, state, observation)
    if found.in_force or isinstance(observation.route, RouteForeign):
        return ()
    back = (
        state.phase is RolloutPhase.ROLLBACK and state.rolled_back_from is not RolloutPhase.PENDING
    )
    if found.drift and not back and found.drift != state.approved_overwrite:
        return ()
    return (SetWeights(weights=weights, stamp=stamp),)


def _drift(plan: RolloutPlan, state: RolloutState, route: RouteSeen) -> str:
    """Other weights than ours are a write of ours that is missing only if they are those before."""
    before = plan.weight_steps[state.previous_weight_index]
    ours_is_missing = route.stamp is None or route.stamp < state.weight_revision
    if ours_is_missing and route.weights == before and not route.altered:
        return ""
    return (
        f"route {plan.route.name} has {route.altered or route.weights}, this rollout wants "
        f"{state.weights(plan)}: somebody else changed it"
    )
