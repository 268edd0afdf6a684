"""One look, one decision: equal inputs give equal decisions, and at most one transition."""

from dataclasses import replace

from moe_serve.rollout.actions import Decision
from moe_serve.rollout.capacity import next_weight_index
from moe_serve.rollout.holds import hold, resume_or_keep_holding
from moe_serve.rollout.observation import JudgeUnavailable, Observation, RouteAbsent
from moe_serve.rollout.pending_holds import patience, pending_hold_of, rollback_reason
from moe_serve.rollout.phases import advance
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.route_status import act_on, route_status
from moe_serve.rollout.state import EntryKind, HoldReason, PendingHold, RolloutPhase, RolloutState


def decide(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> Decision:
    """What follows from what is seen.

    At most one transition a call: call again until the state stays the same. Whoever carries it
    out writes the state down first.
    """
    if fault := _fault(plan, state, observation):
        if state.phase.final:
            return Decision(state=state)
        return Decision(state=_stay(state, _fault_since(state, fault, now), now))
    if state.phase.final:
        return Decision(state=state, actions=act_on(plan, state, observation))
    state = _record_verdict(_shift_clock(state, observation), observation)
    state = _in_force(plan, state, observation, now)
    next_state = _transition(plan, state, observation, now)
    if observation.refused and not next_state.phase.final:
        next_state = _refused(state, next_state, observation.refused, now)
    state = _set_weight_index(plan, next_state, observation, now)
    return Decision(state=state, actions=act_on(plan, state, observation))


def _fault(plan: RolloutPlan, state: RolloutState, observation: Observation) -> str:
    if state.plan != plan.digest:
        return (
            f"the plan is not the one that began ({state.plan}, now {plan.digest}): bring it back, "
            "and abort that rollout first if another is wanted"
        )
    return "; ".join(observation.faults)


def _fault_since(state: RolloutState, fault: str, now: float) -> PendingHold:
    known = state.pending_hold
    same = known is not None and known.reason is HoldReason.FAULT
    return PendingHold(
        reason=HoldReason.FAULT, since=known.since if same and known else now, detail=fault
    )


def _transition(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    """The state after at most one transition, with its concern."""
    if state.phase is RolloutPhase.ROLLBACK:
        return advance(plan, replace(state, pending_hold=None), observation, now)
    if reason := rollback_reason(state, observation):
        return _rolling_back(plan, state, reason, now)
    pending_hold = pending_hold_of(plan, state, observation, now)
    if state.phase is RolloutPhase.HELD:
        return resume_or_keep_holding(
            plan, replace(state, pending_hold=pending_hold), observation, now
        )
    if observation.refused:
        return state
    if pending_hold is None or (
        pending_hold.reason is HoldReason.DRIFT and pending_hold.detail == state.approved_overwrite
    ):
        return advance(plan, replace(state, pending_hold=None), observation, now)
    if now - pending_hold.since >= patience(plan, pending_hold.reason):
        return hold(state, pending_hold, now)
    return _stay(state, pending_hold, now)


def _refused(before: RolloutState, state: RolloutState, why: str, now: float) -> RolloutState:
    """The route cannot be written: that is told above all else, and tried again at every look."""
    return _stay(
        replace(state, pending_hold=before.pending_hold), _fault_since(before, why, now), now
    )


def _stay(state: RolloutState, pending_hold: PendingHold, now: float) -> RolloutState:
    """The rollout stands where it is; a new hold_reason is told."""
    new = state.pending_hold is None or state.pending_hold.reason is not pending_hold.reason
    waits = state.waiting_for if state.phase is RolloutPhase.HELD else pending_hold.detail
    state = replace(state, pending_hold=pending_hold, waiting_for=waits)
    return (
        state.noted(EntryKind.PENDING_HOLD, pending_hold.reason, pending_hold.detail, now)
        if new
        else state
    )


def _rolling_back(plan: RolloutPlan, state: RolloutState, reason: str, now: float) -> RolloutState:
    state = replace(
        state,
        phase=RolloutPhase.ROLLBACK,
        phase_since=now,
        rolled_back_from=state.stage,
        hold=None,
        pending_hold=None,
        approved_overwrite="",
        waiting_for="the route to send everything to stable",
    )
    diff = "; ".join(replica_diff(plan, state))
    recovery = ""
    if state.promoted:
        minutes = plan.capacity.startup_seconds / 60
        recovery = f"; what stable lacks is ready about {minutes:.0f} min after that"
    return state.noted(EntryKind.PHASE, "rollback", f"{reason}. In Git: {diff}{recovery}", now)


def _set_weight_index(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    """The rung for the phase and the ready pods.

    While a write is missing only a rollback may ask for another: what the route shows would no
    longer tell our own writes from a stranger's.
    """
    settled = state.in_force is not None or isinstance(observation.route, RouteAbsent)
    if state.phase.final or not (settled or state.phase is RolloutPhase.ROLLBACK):
        return state
    weight_index = next_weight_index(plan, state, observation, may_rise=state.pending_hold is None)
    if weight_index == state.weight_index:
        return state
    before = state.weights(plan)
    state = replace(
        state,
        weight_index=weight_index,
        previous_weight_index=state.weight_index,
        weight_revision=state.revision + 1,
        in_force=None,
    )
    return state.noted(EntryKind.WEIGHTS, f"{state.weights(plan)}", f"before: {before}", now)


def _in_force(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    if not route_status(plan, state, observation).in_force:
        return replace(state, in_force=None)
    since = now if state.in_force is None else state.in_force
    return replace(state, in_force=since, approved_overwrite="")


def _record_verdict(state: RolloutState, observation: Observation) -> RolloutState:
    """The judge's verdict with its reason at the time it became that."""
    if isinstance(observation.judge_result, JudgeUnavailable):
        verdict, reason = "none", observation.judge_result.reason
    else:
        verdict, reason = observation.judge_result.verdict.value, observation.judge_result.reason
    if verdict == state.verdict:
        return state
    return replace(state, verdict=verdict, verdict_reason=reason)


def _shift_clock(state: RolloutState, observation: Observation) -> RolloutState:
    """Durations go on where they were when the clock was set."""
    jump = observation.clock_jump_seconds
    if not jump:
        return state
    pending_hold = state.pending_hold
    return replace(
        state,
        phase_since=state.phase_since + jump,
        deadline_at=state.deadline_at + jump,
        in_force=None if state.in_force is None else state.in_force + jump,
        pending_hold=replace(pending_hold, since=pending_hold.since + jump)
        if pending_hold
        else None,
    )
