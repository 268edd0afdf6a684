"""One look, one decision: equal inputs give equal decisions, and at most one transition."""

from dataclasses import replace

from moe_serve.rollout.actions import Decision
from moe_serve.rollout.capacity import next_rung
from moe_serve.rollout.concerns import alarm, concern_of, patience
from moe_serve.rollout.holds import held, hold
from moe_serve.rollout.observation import NoWord, Observation, RouteAbsent
from moe_serve.rollout.phases import onward
from moe_serve.rollout.plan import Plan
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.route import act_on, standing
from moe_serve.rollout.state import Concern, Kind, Phase, State, Trouble


def decide(plan: Plan, state: State, seen: Observation, now: float) -> Decision:
    """What follows from what is seen.

    At most one transition a call: call again until the state stays the same. Whoever carries it
    out writes the state down first.
    """
    if fault := _fault(plan, state, seen):
        if state.phase.final:
            return Decision(state=state)
        return Decision(state=_troubled(state, _since(state, fault, now), now))
    if state.phase.final:
        return Decision(state=state, actions=act_on(plan, state, seen))
    state = _heard(_clocked(state, seen), seen)
    state = _in_force(plan, state, seen, now)
    moved = _moved(plan, state, seen, now)
    if seen.refused and not moved.phase.final:
        moved = _refused(state, moved, seen.refused, now)
    state = _weighed(plan, moved, seen, now)
    return Decision(state=state, actions=act_on(plan, state, seen))


def _fault(plan: Plan, state: State, seen: Observation) -> str:
    if state.plan != plan.digest:
        return (
            f"the plan is not the one that began ({state.plan}, now {plan.digest}): bring it back, "
            "and abort that rollout first if another is wanted"
        )
    return "; ".join(seen.faults)


def _since(state: State, fault: str, now: float) -> Concern:
    known = state.concern
    same = known is not None and known.trouble is Trouble.FAULT
    return Concern(
        trouble=Trouble.FAULT, since=known.since if same and known else now, detail=fault
    )


def _moved(plan: Plan, state: State, seen: Observation, now: float) -> State:
    """The state after at most one transition, with its concern."""
    if state.phase is Phase.ROLLBACK:
        return onward(plan, replace(state, concern=None), seen, now)
    if reason := alarm(state, seen):
        return _rolling_back(plan, state, reason, now)
    concern = concern_of(plan, state, seen, now)
    if state.phase is Phase.HELD:
        return held(plan, replace(state, concern=concern), seen, now)
    if seen.refused:
        return state
    if concern is None or (concern.trouble is Trouble.DRIFT and concern.detail == state.retake):
        return onward(plan, replace(state, concern=None), seen, now)
    if now - concern.since >= patience(plan, concern.trouble):
        return hold(state, concern, now)
    return _troubled(state, concern, now)


def _refused(before: State, state: State, why: str, now: float) -> State:
    """The route cannot be written: that is told above all else, and tried again at every look."""
    return _troubled(replace(state, concern=before.concern), _since(before, why, now), now)


def _troubled(state: State, concern: Concern, now: float) -> State:
    """The rollout stands where it is; a new trouble is told."""
    new = state.concern is None or state.concern.trouble is not concern.trouble
    waits = state.waits_for if state.phase is Phase.HELD else concern.detail
    state = replace(state, concern=concern, waits_for=waits)
    return state.noted(Kind.CONCERN, concern.trouble, concern.detail, now) if new else state


def _rolling_back(plan: Plan, state: State, reason: str, now: float) -> State:
    state = replace(
        state,
        phase=Phase.ROLLBACK,
        phase_since=now,
        rolled_back_from=state.stage,
        hold=None,
        concern=None,
        retake="",
        waits_for="the route to send everything to stable",
    )
    diff = "; ".join(replica_diff(plan, state))
    recovery = ""
    if state.promoted:
        minutes = plan.capacity.startup_seconds / 60
        recovery = f"; what stable lacks is ready about {minutes:.0f} min after that"
    return state.noted(Kind.PHASE, "rollback", f"{reason}. In Git: {diff}{recovery}", now)


def _weighed(plan: Plan, state: State, seen: Observation, now: float) -> State:
    """The rung for the phase and the ready pods.

    While a write is missing only a rollback may ask for another: what the route shows would no
    longer tell our own writes from a stranger's.
    """
    settled = state.in_force is not None or isinstance(seen.route, RouteAbsent)
    if state.phase.final or not (settled or state.phase is Phase.ROLLBACK):
        return state
    rung = next_rung(plan, state, seen, may_rise=state.concern is None)
    if rung == state.rung:
        return state
    before = state.weights(plan)
    state = replace(
        state,
        rung=rung,
        rung_before=state.rung,
        rung_revision=state.revision + 1,
        in_force=None,
    )
    return state.noted(Kind.WEIGHTS, f"{state.weights(plan)}", f"before: {before}", now)


def _in_force(plan: Plan, state: State, seen: Observation, now: float) -> State:
    if not standing(plan, state, seen).in_force:
        return replace(state, in_force=None)
    since = now if state.in_force is None else state.in_force
    return replace(state, in_force=since, retake="")


def _heard(state: State, seen: Observation) -> State:
    """The judge's verdict with its reason at the time it became that."""
    if isinstance(seen.word, NoWord):
        verdict, reason = "none", seen.word.reason
    else:
        verdict, reason = seen.word.verdict.value, seen.word.reason
    if verdict == state.verdict:
        return state
    return replace(state, verdict=verdict, verdict_reason=reason)


def _clocked(state: State, seen: Observation) -> State:
    """Durations go on where they were when the clock was set."""
    jump = seen.clock_jump_seconds
    if not jump:
        return state
    concern = state.concern
    return replace(
        state,
        phase_since=state.phase_since + jump,
        deadline_at=state.deadline_at + jump,
        in_force=None if state.in_force is None else state.in_force + jump,
        concern=replace(concern, since=concern.since + jump) if concern else None,
    )
