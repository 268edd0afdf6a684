"""What each phase waits for, and what follows it."""

from dataclasses import replace

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import Outcome
from moe_serve.rollout.capacity import stable_carries_all
from moe_serve.rollout.observation import (
    ArmSeen,
    Identity,
    NoWord,
    Observation,
    RouteSeen,
    Word,
)
from moe_serve.rollout.plan import Need, Plan
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.state import Evidence, Kind, Phase, State
from moe_serve.rollout.weights import Arm


def onward(plan: Plan, state: State, seen: Observation, now: float) -> State:
    """The next phase or step if nothing is missing; else the same state, saying what is."""
    match state.phase:
        case Phase.PENDING:
            return _pending(plan, state, seen, now)
        case Phase.QUALITY:
            return _quality(plan, state, seen, now)
        case Phase.STEPS:
            return _steps(plan, state, seen, now)
        case Phase.PROMOTION:
            return _promotion(plan, state, seen, now)
        case Phase.WATCH:
            return _watch(plan, state, seen, now)
        case Phase.ROLLBACK:
            return _rollback(plan, state, seen, now)
        case _:
            return state


def _pending(plan: Plan, state: State, seen: Observation, now: float) -> State:
    if missing := _missing(plan, state, seen):
        return replace(state, waits_for=missing)
    judged = {arm: next(iter(seen.seen(arm).identities)) for arm in plan.arms}
    what = "; ".join(f"{arm} {_named(who)}" for arm, who in judged.items())
    return _entered(
        replace(state, judged=judged),
        Phase.QUALITY,
        f"all pods are ready, the canary gets no traffic yet: {what}",
        now,
    )


def _missing(plan: Plan, state: State, seen: Observation) -> str:
    """What is not there before a canary can be looked at; empty if all is."""
    if few := _few(plan, seen):
        return few
    if uneven := next((arm for arm in plan.arms if not _alike(seen.seen(arm))), None):
        return f"{uneven}'s pods to run one and the same: their images or configurations differ"
    if plan.baseline and seen.seen(Arm.BASELINE).identities != seen.seen(Arm.STABLE).identities:
        return "baseline to run what stable runs: their images or configurations differ"
    return _unrouted(plan, state, seen)


def _unrouted(plan: Plan, state: State, seen: Observation) -> str:
    if state.in_force is None:
        return f"route {plan.route.name} to send everything to stable"
    if isinstance(seen.route, RouteSeen) and seen.route.refused:
        return f"a gateway to take route {plan.route.name}: {seen.route.refused}"
    return ""


def _few(plan: Plan, seen: Observation) -> str:
    """Stable may have fewer pods than planned, as long as they carry the traffic."""
    for arm, part in plan.arms.items():
        ready, wanted = seen.seen(arm).ready(), part.replicas
        if arm is not Arm.STABLE and ready < wanted:
            return f"{arm}'s pods: {ready} of {wanted} of {part.service} are ready"
    ready = seen.seen(Arm.STABLE).ready()
    if ready and stable_carries_all(plan, seen):
        return ""
    wanted = plan.capacity.pods_for_all_traffic
    return f"stable's pods: {ready} are ready, and all traffic takes {wanted}"


def _alike(arm: ArmSeen) -> bool:
    return len(arm.identities) == 1 and all(who.image_id is not None for who in arm.identities)


def _quality(plan: Plan, state: State, seen: Observation, now: float) -> State:
    word = _word(seen)
    if word.quality is not Outcome.PASSED:
        return replace(
            state,
            waits_for="the comparison of answers to pass before any traffic (moe-serve quality "
            f"probe): {'none yet' if word.quality is None else 'undecided'} "
            f"({word.quality_reason})",
        )
    state = replace(state, quality_passed=True, step=0, comparison_since=None, rules="")
    return _entered(state, Phase.STEPS, f"the answers are the same: {word.quality_reason}", now)


def _steps(plan: Plan, state: State, seen: Observation, now: float) -> State:
    word, step = _word(seen), plan.steps[state.step]
    state = _pinned(state, word)
    place = f"step {state.step + 1} of {len(plan.steps)}"
    if state.in_force is None or state.rung != state.step + 1:
        return replace(state, waits_for=f"{place}: {step.weights} in force")
    if now < max(state.in_force, state.phase_since) + step.hold_seconds:
        return replace(state, waits_for=f"{place}: {step.weights} for {step.hold_seconds:g} s")
    if step.need is Need.PROMOTE and word.verdict is not Verdict.PROMOTE:
        return replace(state, waits_for=f"{place}: the judge to say PROMOTE")
    if state.step + 1 < len(plan.steps):
        following = plan.steps[state.step + 1]
        return replace(
            state, step=state.step + 1, phase_since=now, waits_for=f"{following.weights} in force"
        ).noted(Kind.PHASE, f"step {state.step + 2}", f"{place} held: {word.verdict.value}", now)
    if word.quality is not Outcome.PASSED:
        return replace(state, waits_for=f"{place}: the answers to be shown the same again")
    return _promoted(plan, state, word, now)


def _pinned(state: State, word: Word) -> State:
    """The first word of the steps fixes which comparison, under which rules, is the rollout's."""
    if state.rules:
        return state
    return replace(state, rules=word.rules, comparison_since=word.since)


def _promoted(plan: Plan, state: State, word: Word, now: float) -> State:
    state = replace(
        state,
        evidence=Evidence(
            at=word.judged_at, reason=word.reason, quality=word.quality_reason, rules=word.rules
        ),
        deadline_at=now + plan.promotion.deadline_seconds,
    )
    state = replace(state, phase=Phase.PROMOTION)
    diff = "; ".join(replica_diff(plan, state))
    return _entered(state, Phase.PROMOTION, f"PROMOTE: {word.reason}. Now in Git: {diff}", now)


def _promotion(plan: Plan, state: State, seen: Observation, now: float) -> State:
    canary, wanted = plan.arms[Arm.CANARY], plan.promotion.replicas
    ready = seen.seen(Arm.CANARY).ready(state.judged.get(Arm.CANARY))
    full = state.rung == len(plan.rungs) - 1 and state.in_force is not None
    if ready < wanted or not full:
        return replace(
            state,
            waits_for=f"the commits ({'; '.join(replica_diff(plan, state))}); "
            f"{ready} of {wanted} pods of {canary.service} are ready",
        )
    return _entered(state, Phase.WATCH, f"{canary.service} has all traffic, on {ready} pods", now)


def _watch(plan: Plan, state: State, seen: Observation, now: float) -> State:
    if now < state.phase_since + plan.watch_seconds:
        return replace(state, waits_for=f"the watch of {plan.watch_seconds / 3600:g} h to end")
    if _word(seen).quality is not Outcome.PASSED:
        return replace(state, waits_for="the answers to be shown the same at the watch's end")
    state = replace(state, phase=Phase.DONE)
    diff = "; ".join(replica_diff(plan, state)) or "nothing"
    return _entered(state, Phase.DONE, f"the watch is over. Now in Git: {diff}", now)


def _rollback(plan: Plan, state: State, seen: Observation, now: float) -> State:
    untouched = state.rolled_back_from is Phase.PENDING
    if state.rung == 0 and (untouched or state.in_force is not None):
        diff = "; ".join(replica_diff(plan, state))
        route = "the route is as it was" if untouched else "stable has all traffic"
        return _entered(state, Phase.ROLLED_BACK, f"{route}. Now in Git: {diff}", now)
    if state.rung == 0:
        return replace(state, waits_for="the route to send everything to stable")
    stable = seen.seen(Arm.STABLE).ready()
    return replace(
        state,
        waits_for=f"stable's pods: {stable} are ready, and all traffic takes "
        f"{plan.capacity.pods_for_all_traffic}; in Git: {'; '.join(replica_diff(plan, state))}",
    )


def _entered(state: State, phase: Phase, why: str, now: float) -> State:
    waits = "nothing: it is over" if phase.final else f"{phase} to begin"
    return replace(state, phase=phase, phase_since=now, waits_for=waits).noted(
        Kind.PHASE, str(phase), why, now
    )


def _word(seen: Observation) -> Word:
    assert not isinstance(seen.word, NoWord), "a rollout without a word is blind, and waits"
    return seen.word


def _named(who: Identity) -> str:
    return f"{who.config_digest} on {who.image_id}"
