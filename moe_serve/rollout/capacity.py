"""Which of the plan's weights the ready pods can carry now."""

from moe_serve.rollout.observation import Observation
from moe_serve.rollout.plan import RolloutPlan, carries
from moe_serve.rollout.state import RolloutPhase, RolloutState
from moe_serve.rollout.weights import ALL, Track, Weights


def cap(plan: RolloutPlan, state: RolloutState) -> int:
    """The highest rung that the phase allows; a hold never raises."""
    match state.phase:
        case RolloutPhase.STEPS:
            return state.step + 1
        case RolloutPhase.PROMOTION | RolloutPhase.WATCH | RolloutPhase.DONE:
            return len(plan.weight_steps) - 1
        case RolloutPhase.HELD:
            return state.weight_index
        case _:
            return 0


def next_weight_index(
    plan: RolloutPlan, state: RolloutState, observation: Observation, *, may_rise: bool
) -> int:
    """The rung for what is ready now.

    Where moving weight to stable would leave requests without any pod, it stays where it is.
    """
    if state.phase in (RolloutPhase.ROLLBACK, RolloutPhase.ROLLED_BACK):
        return _down(plan, state, observation)
    highest = cap(plan, state) if may_rise else min(state.weight_index, cap(plan, state))
    found = next(
        weight_index
        for weight_index in range(highest, -1, -1)
        if fits(plan, state, observation, plan.weight_steps[weight_index])
    )
    if found < state.weight_index and not observation.track(Track.STABLE).ready():
        return state.weight_index
    return found


def fits(
    plan: RolloutPlan, state: RolloutState, observation: Observation, weights: Weights
) -> bool:
    """Neither compared track gets more than its judged, ready pods can carry."""
    return all(
        not weights.of(track)
        or _carries(plan, observation, track, weights.of(track), _judged(state, observation, track))
        for track in (Track.BASELINE, Track.CANARY)
    )


def stable_carries_all(plan: RolloutPlan, observation: Observation) -> bool:
    """Stable alone could take everything now."""
    ready = observation.track(Track.STABLE).ready()
    return _carries(plan, observation, Track.STABLE, ALL, ready)


def _judged(state: RolloutState, observation: Observation, track: Track) -> int:
    """Ready pods that run what is judged; during the steps one stranger spoils its track, since a
    Service sends requests to it too.
    """
    known = state.judged.get(track)
    ready = observation.track(track).ready()
    same = observation.track(track).ready(known) if known else ready
    return same if state.promoted or same == ready else 0


def _carries(
    plan: RolloutPlan, observation: Observation, track: Track, weight: int, ready: int
) -> bool:
    return carries(
        plan.capacity,
        weight=weight,
        ready=ready,
        of=observation.ready,
        load_pods=observation.load_pods,
    )


def _down(plan: RolloutPlan, state: RolloutState, observation: Observation) -> int:
    """Back to dark at once; after a promotion, as fast as stable's pods can take it."""
    ready = observation.track(Track.STABLE).ready()
    if not ready:
        return state.weight_index
    if not state.promoted or stable_carries_all(plan, observation):
        return 0
    return next(
        (
            weight_index
            for weight_index in range(state.weight_index)
            if _carries(
                plan, observation, Track.STABLE, plan.weight_steps[weight_index].stable, ready
            )
            and (
                not plan.weight_steps[weight_index].baseline
                or observation.track(Track.BASELINE).ready()
            )
        ),
        state.weight_index,
    )
