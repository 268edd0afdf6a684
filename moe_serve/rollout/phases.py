"""What each phase waits for, and what follows it."""

from dataclasses import replace

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.capacity import stable_carries_all
from moe_serve.rollout.observation import (
    Identity,
    JudgeResult,
    JudgeUnavailable,
    Observation,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.plan import Need, RolloutPlan
from moe_serve.rollout.replicas import replica_diff
from moe_serve.rollout.state import EntryKind, PromotionEvidence, RolloutPhase, RolloutState
from moe_serve.rollout.weights import Track


def advance(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    """The next phase or step if nothing is missing; else the same state, saying what is."""
    match state.phase:
        case RolloutPhase.PENDING:
            return _pending(plan, state, observation, now)
        case RolloutPhase.QUALITY:
            return _quality(plan, state, observation, now)
        case RolloutPhase.STEPS:
            return _steps(plan, state, observation, now)
        case RolloutPhase.PROMOTION:
            return _promotion(plan, state, observation, now)
        case RolloutPhase.WATCH:
            return _watch(plan, state, observation, now)
        case RolloutPhase.ROLLBACK:
            return _rollback(plan, state, observation, now)
        case _:
            return state


def _pending(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    if missing := _missing(plan, state, observation):
        return replace(state, waiting_for=missing)
    judged = {track: next(iter(observation.track(track).identities)) for track in plan.tracks}
    what = "; ".join(f"{track} {_named(who)}" for track, who in judged.items())
    return _entered(
        replace(state, judged=judged),
        RolloutPhase.QUALITY,
        f"all pods are ready, the canary gets no traffic yet: {what}",
        now,
    )


def _missing(plan: RolloutPlan, state: RolloutState, observation: Observation) -> str:
    """What is not there before a canary can be looked at; empty if all is."""
    if few := _few(plan, observation):
        return few
    if uneven := next(
        (track for track in plan.tracks if not _alike(observation.track(track))), None
    ):
        return f"{uneven}'s pods to run one and the same: their images or configurations differ"
    if (
        plan.baseline
        and observation.track(Track.BASELINE).identities
        != observation.track(Track.STABLE).identities
    ):
        return "baseline to run what stable runs: their images or configurations differ"
    return _unrouted(plan, state, observation)


def _unrouted(plan: RolloutPlan, state: RolloutState, observation: Observation) -> str:
    if state.in_force is None:
        return f"route {plan.route.name} to send everything to stable"
    if isinstance(observation.route, RouteSeen) and observation.route.refused:
        return f"a gateway to take route {plan.route.name}: {observation.route.refused}"
    return ""


def _few(plan: RolloutPlan, observation: Observation) -> str:
    """Stable may have fewer pods than planned, as long as they carry the traffic."""
    for track, part in plan.tracks.items():
        ready, wanted = observation.track(track).ready(), part.replicas
        if track is not Track.STABLE and ready < wanted:
            return f"{track}'s pods: {ready} of {wanted} of {part.service} are ready"
    ready = observation.track(Track.STABLE).ready()
    if ready and stable_carries_all(plan, observation):
        return ""
    wanted = plan.capacity.pods_for_all_traffic
    return f"stable's pods: {ready} are ready, and all traffic takes {wanted}"


def _alike(track: TrackStatus) -> bool:
    return len(track.identities) == 1 and all(who.image_id is not None for who in track.identities)


def _quality(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    judge_result = _judge_result(observation)
    if judge_result.quality is not QualityOutcome.PASSED:
        return replace(
            state,
            waiting_for="the comparison of answers to pass before any traffic (moe-serve quality "
            f"probe): {'none yet' if judge_result.quality is None else 'undecided'} "
            f"({judge_result.quality_reason})",
        )
    state = replace(state, quality_passed=True, step=0, comparison_since=None, rules="")
    return _entered(
        state, RolloutPhase.STEPS, f"the answers are the same: {judge_result.quality_reason}", now
    )


def _steps(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    judge_result, step = _judge_result(observation), plan.steps[state.step]
    state = _pinned(state, judge_result)
    place = f"step {state.step + 1} of {len(plan.steps)}"
    if state.in_force is None or state.weight_index != state.step + 1:
        return replace(state, waiting_for=f"{place}: {step.weights} in force")
    if now < max(state.in_force, state.phase_since) + step.hold_seconds:
        return replace(state, waiting_for=f"{place}: {step.weights} for {step.hold_seconds:g} s")
    if step.need is Need.PROMOTE and judge_result.verdict is not Verdict.PROMOTE:
        return replace(state, waiting_for=f"{place}: the judge to say PROMOTE")
    if state.step + 1 < len(plan.steps):
        following = plan.steps[state.step + 1]
        return replace(
            state, step=state.step + 1, phase_since=now, waiting_for=f"{following.weights} in force"
        ).noted(
            EntryKind.PHASE,
            f"step {state.step + 2}",
            f"{place} held: {judge_result.verdict.value}",
            now,
        )
    if judge_result.quality is not QualityOutcome.PASSED:
        return replace(state, waiting_for=f"{place}: the answers to be shown the same again")
    return _promoted(plan, state, judge_result, now)


def _pinned(state: RolloutState, judge_result: JudgeResult) -> RolloutState:
    """The first word of the steps fixes which comparison, under which rules, is the rollout's."""
    if state.rules:
        return state
    return replace(state, rules=judge_result.rules, comparison_since=judge_result.since)


def _promoted(
    plan: RolloutPlan, state: RolloutState, judge_result: JudgeResult, now: float
) -> RolloutState:
    state = replace(
        state,
        evidence=PromotionEvidence(
            at=judge_result.judged_at,
            reason=judge_result.reason,
            quality=judge_result.quality_reason,
            rules=judge_result.rules,
        ),
        deadline_at=now + plan.promotion.deadline_seconds,
    )
    state = replace(state, phase=RolloutPhase.PROMOTION)
    diff = "; ".join(replica_diff(plan, state))
    return _entered(
        state, RolloutPhase.PROMOTION, f"PROMOTE: {judge_result.reason}. Now in Git: {diff}", now
    )


def _promotion(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    canary, wanted = plan.tracks[Track.CANARY], plan.promotion.replicas
    ready = observation.track(Track.CANARY).ready(state.judged.get(Track.CANARY))
    full = state.weight_index == len(plan.weight_steps) - 1 and state.in_force is not None
    if ready < wanted or not full:
        return replace(
            state,
            waiting_for=f"the commits ({'; '.join(replica_diff(plan, state))}); "
            f"{ready} of {wanted} pods of {canary.service} are ready",
        )
    return _entered(
        state, RolloutPhase.WATCH, f"{canary.service} has all traffic, on {ready} pods", now
    )


def _watch(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    if now < state.phase_since + plan.watch_seconds:
        return replace(state, waiting_for=f"the watch of {plan.watch_seconds / 3600:g} h to end")
    if _judge_result(observation).quality is not QualityOutcome.PASSED:
        return replace(state, waiting_for="the answers to be shown the same at the watch's end")
    state = replace(state, phase=RolloutPhase.DONE)
    diff = "; ".join(replica_diff(plan, state)) or "nothing"
    return _entered(state, RolloutPhase.DONE, f"the watch is over. Now in Git: {diff}", now)


def _rollback(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> RolloutState:
    untouched = state.rolled_back_from is RolloutPhase.PENDING
    if state.weight_index == 0 and (untouched or state.in_force is not None):
        diff = "; ".join(replica_diff(plan, state))
        route = "the route is as it was" if untouched else "stable has all traffic"
        return _entered(state, RolloutPhase.ROLLED_BACK, f"{route}. Now in Git: {diff}", now)
    if state.weight_index == 0:
        return replace(state, waiting_for="the route to send everything to stable")
    stable = observation.track(Track.STABLE).ready()
    return replace(
        state,
        waiting_for=f"stable's pods: {stable} are ready, and all traffic takes "
        f"{plan.capacity.pods_for_all_traffic}; in Git: {'; '.join(replica_diff(plan, state))}",
    )


def _entered(state: RolloutState, phase: RolloutPhase, why: str, now: float) -> RolloutState:
    waits = "nothing: it is over" if phase.final else f"{phase} to begin"
    return replace(state, phase=phase, phase_since=now, waiting_for=waits).noted(
        EntryKind.PHASE, str(phase), why, now
    )


def _judge_result(observation: Observation) -> JudgeResult:
    assert not isinstance(observation.judge_result, JudgeUnavailable), (
        "a rollout without a word is blind, and waits"
    )
    return observation.judge_result


def _named(who: Identity) -> str:
    return f"{who.pod_spec_digest} on {who.image_id}"
