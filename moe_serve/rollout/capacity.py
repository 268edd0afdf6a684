"""Which of the plan's weights the ready pods can carry now."""

from moe_serve.rollout.observation import Observation
from moe_serve.rollout.plan import Plan, carries
from moe_serve.rollout.state import Phase, State
from moe_serve.rollout.weights import ALL, Arm, Weights


def cap(plan: Plan, state: State) -> int:
    """The highest rung that the phase allows; a hold never raises."""
    match state.phase:
        case Phase.STEPS:
            return state.step + 1
        case Phase.PROMOTION | Phase.WATCH | Phase.DONE:
            return len(plan.rungs) - 1
        case Phase.HELD:
            return state.rung
        case _:
            return 0


def next_rung(plan: Plan, state: State, seen: Observation, *, may_rise: bool) -> int:
    """The rung for what is ready now.

    Where moving weight to stable would leave requests without any pod, it stays where it is.
    """
    if state.phase in (Phase.ROLLBACK, Phase.ROLLED_BACK):
        return _down(plan, state, seen)
    highest = cap(plan, state) if may_rise else min(state.rung, cap(plan, state))
    found = next(
        rung for rung in range(highest, -1, -1) if fits(plan, state, seen, plan.rungs[rung])
    )
    if found < state.rung and not seen.seen(Arm.STABLE).ready():
        return state.rung
    return found


def fits(plan: Plan, state: State, seen: Observation, weights: Weights) -> bool:
    """Neither compared arm gets more than its judged, ready pods can carry."""
    return all(
        not weights.of(arm) or _carries(plan, seen, arm, weights.of(arm), _judged(state, seen, arm))
        for arm in (Arm.BASELINE, Arm.CANARY)
    )


def stable_carries_all(plan: Plan, seen: Observation) -> bool:
    """Stable alone could take everything now."""
    ready = seen.seen(Arm.STABLE).ready()
    return _carries(plan, seen, Arm.STABLE, ALL, ready)


def _judged(state: State, seen: Observation, arm: Arm) -> int:
    """Ready pods that run what is judged; during the steps one stranger spoils its arm, since a
    Service sends requests to it too.
    """
    known = state.judged.get(arm)
    ready = seen.seen(arm).ready()
    same = seen.seen(arm).ready(known) if known else ready
    return same if state.promoted or same == ready else 0


def _carries(plan: Plan, seen: Observation, arm: Arm, weight: int, ready: int) -> bool:
    return carries(
        plan.capacity, weight=weight, ready=ready, of=seen.ready, load_pods=seen.load_pods
    )


def _down(plan: Plan, state: State, seen: Observation) -> int:
    """Back to dark at once; after a promotion, as fast as stable's pods can take it."""
    ready = seen.seen(Arm.STABLE).ready()
    if not ready:
        return state.rung
    if not state.promoted or stable_carries_all(plan, seen):
        return 0
    return next(
        (
            rung
            for rung in range(state.rung)
            if _carries(plan, seen, Arm.STABLE, plan.rungs[rung].stable, ready)
            and (not plan.rungs[rung].baseline or seen.seen(Arm.BASELINE).ready())
        ),
        state.rung,
    )
