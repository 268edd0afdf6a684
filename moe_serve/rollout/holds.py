"""A hold: it raises nothing, rolls back when it must, and ends when a person did something."""

from dataclasses import replace

from moe_serve.rollout.observation import Observation
from moe_serve.rollout.plan import Plan
from moe_serve.rollout.route import standing
from moe_serve.rollout.state import Concern, Hold, Kind, Phase, State, Trouble


def hold(state: State, concern: Concern, now: float) -> State:
    """The rollout is held for a trouble that lasted too long."""
    how = "it goes on by itself when that is mended"
    if concern.trouble.approvable:
        how = "it waits for `canary approve` or `canary abort`"
    text = f"{concern.detail}; {how}"
    return replace(
        state,
        phase=Phase.HELD,
        phase_since=now,
        concern=concern,
        hold=Hold(
            cause=concern.trouble,
            resume=state.phase,
            revision=state.revision + 1,
            phase_since=state.phase_since,
        ),
        waits_for=text,
    ).noted(Kind.PHASE, "held", f"{concern.trouble}: {text}", now)


def held(plan: Plan, state: State, seen: Observation, now: float) -> State:
    """Still held, or on again: the trouble is gone, or a person approved."""
    found = state.hold
    assert found is not None, "a state that is held says why"
    gone = state.concern is None or state.concern.trouble is not found.cause
    if found.cause.clears_itself and gone:
        return _resumed(plan, state, found, f"{found.cause} is gone", now)
    if found.cause.approvable and seen.person.approve == found.revision:
        state = _resumed(plan, state, found, f"a person approved: {found.cause}", now)
        return _retaking(plan, state, seen) if found.cause is Trouble.DRIFT else state
    return state


def _retaking(plan: Plan, state: State, seen: Observation) -> State:
    """Ours is to be written over what is there now. Its new stamp tells it from a later drift."""
    drift = standing(plan, state, seen).drift
    return replace(state, retake=drift, rung_revision=state.revision)


def _resumed(plan: Plan, state: State, found: Hold, why: str, now: float) -> State:
    """Back in the phase; held time counts for nothing, and an approved deadline begins anew."""
    lost = now - state.phase_since
    deadline = state.deadline_at + lost
    if found.cause is Trouble.DEADLINE:
        promoted = found.resume is Phase.PROMOTION
        deadline = now + (
            plan.promotion.deadline_seconds if promoted else plan.patience.deadline_seconds
        )
    return replace(
        state,
        phase=found.resume,
        phase_since=found.phase_since + lost,
        deadline_at=deadline,
        hold=None,
        concern=None,
        waits_for=f"{found.resume} to go on",
    ).noted(Kind.PHASE, str(found.resume), why, now)
