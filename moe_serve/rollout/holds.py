"""A hold: it raises nothing, rolls back when it must, and ends when a person did something."""

from dataclasses import replace

from moe_serve.rollout.observation import Observation
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.route_status import route_status
from moe_serve.rollout.state import (
    EntryKind,
    Hold,
    HoldReason,
    PendingHold,
    RolloutPhase,
    RolloutState,
)


def hold(state: RolloutState, pending_hold: PendingHold, now: float) -> RolloutState:
    """The rollout is held for a trouble that lasted too long."""
    how = "it goes on by itself when that is mended"
    if pending_hold.reason.approvable:
        how = "it waits for `canary approve` or `canary abort`"
    text = f"{pending_hold.detail}; {how}"
    return replace(
        state,
        phase=RolloutPhase.HELD,
        phase_since=now,
        pending_hold=pending_hold,
        hold=Hold(
            reason=pending_hold.reason,
            resume=state.phase,
            revision=state.revision + 1,
            phase_since=state.phase_since,
        ),
        waiting_for=text,
    ).noted(EntryKind.PHASE, "held", f"{pending_hold.reason}: {text}", now)


def resume_or_keep_holding(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    """Still held, or on again: the hold_reason is gone, or a person approved."""
    found = state.hold
    assert found is not None, "a state that is held says why"
    gone = state.pending_hold is None or state.pending_hold.reason is not found.reason
    if found.reason.clears_itself and gone:
        return _resumed(plan, state, found, f"{found.reason} is gone", now)
    if found.reason.approvable and observation.human_request.approve == found.revision:
        state = _resumed(plan, state, found, f"a person approved: {found.reason}", now)
        return (
            _approve_overwrite(plan, state, observation)
            if found.reason is HoldReason.DRIFT
            else state
        )
    return state


def _approve_overwrite(
    plan: RolloutPlan, state: RolloutState, observation: Observation
) -> RolloutState:
    """Ours is to be written over what is there now. Its new stamp tells it from a later drift."""
    drift = route_status(plan, state, observation).drift
    return replace(state, approved_overwrite=drift, weight_revision=state.revision)


def _resumed(
    plan: RolloutPlan, state: RolloutState, found: Hold, why: str, now: float
) -> RolloutState:
    """Back in the phase; held time counts for nothing, and an approved deadline begins anew."""
    lost = now - state.phase_since
    deadline = state.deadline_at + lost
    if found.reason is HoldReason.DEADLINE:
        promoted = found.resume is RolloutPhase.PROMOTION
        deadline = now + (
            plan.promotion.deadline_seconds if promoted else plan.patience.deadline_seconds
        )
    return replace(
        state,
        phase=found.resume,
        phase_since=found.phase_since + lost,
        deadline_at=deadline,
        hold=None,
        pending_hold=None,
        waiting_for=f"{found.resume} to go on",
    ).noted(EntryKind.PHASE, str(found.resume), why, now)
