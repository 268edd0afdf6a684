"""What keeps a rollout from going on, and what ends it at once."""

import math
from collections.abc import Iterator

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.observation import JudgeResult, JudgeUnavailable, Observation
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.route_status import route_status
from moe_serve.rollout.state import HoldReason, PendingHold, RolloutPhase, RolloutState
from moe_serve.rollout.weights import Track

_JUDGED = (RolloutPhase.QUALITY, RolloutPhase.STEPS, RolloutPhase.PROMOTION, RolloutPhase.WATCH)


def rollback_reason(state: RolloutState, observation: Observation) -> str:
    """Why the canary must go, now; empty if it need not."""
    if observation.human_request.abort == state.rollout:
        return "a person aborted it"
    judge_result = observation.judge_result
    if isinstance(judge_result, JudgeUnavailable) or state.stage not in _JUDGED:
        return ""
    if judge_result.quality is QualityOutcome.FAILED:
        return f"the answers differ: {judge_result.quality_reason}"
    # Before any traffic the judge has nothing of this rollout but the answers to speak of.
    if judge_result.verdict is Verdict.ROLLBACK and state.stage is not RolloutPhase.QUALITY:
        return f"the judge: {judge_result.reason}"
    return ""


def pending_hold_of(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> PendingHold | None:
    """The most serious trouble that is there now; `since` is when it was first seen."""
    hold_reason, detail = next(_hold_reasons(plan, state, observation, now), (None, ""))
    if hold_reason is None:
        return None
    known = state.pending_hold
    if known is None or known.reason is not hold_reason:
        return PendingHold(reason=hold_reason, since=now, detail=detail)
    # A judge's sentences change with every look; what a person is told should not.
    kept = known.detail if hold_reason in (HoldReason.BLIND, HoldReason.INVALID) else detail
    return PendingHold(reason=hold_reason, since=known.since, detail=kept)


def patience(plan: RolloutPlan, hold_reason: HoldReason) -> float:
    """Seconds for which it may last before the rollout is held."""
    return {
        HoldReason.BLIND: plan.patience.blind_seconds,
        HoldReason.INVALID: plan.patience.invalid_seconds,
        HoldReason.UNPLACEABLE: plan.patience.unplaceable_seconds,
        HoldReason.ABSENT: math.inf,  # the phase's own deadline is enough
    }.get(hold_reason, 0.0)


def invalid_reason(state: RolloutState, judge_result: JudgeResult) -> str:
    """Why the judge's comparison is not to be trusted; empty if it is."""
    if judge_result.verdict is Verdict.INVALID:
        return f"the comparison is invalid: {judge_result.reason}"
    if state.rules and judge_result.rules != state.rules:
        return f"the judge's rules changed from {state.rules} to {judge_result.rules}"
    if state.comparison_since is not None and judge_result.since not in (
        None,
        state.comparison_since,
    ):
        return (
            "the judge's comparison began anew: start the judge with the time of the first "
            "(--start), or what was looked at before is forgotten"
        )
    return ""


def _hold_reasons(
    plan: RolloutPlan, state: RolloutState, observation: Observation, now: float
) -> Iterator[tuple[HoldReason, str]]:
    if unexpected_pods := _unexpected_pods(plan, state, observation):
        yield HoldReason.IDENTITY, unexpected_pods
    if drift := route_status(plan, state, observation).drift:
        yield HoldReason.DRIFT, drift
    stage = state.stage
    if stage in (RolloutPhase.PENDING, RolloutPhase.QUALITY, RolloutPhase.STEPS) and (
        full := _unplaceable(plan, observation)
    ):
        yield HoldReason.UNPLACEABLE, full
    if stage is not RolloutPhase.WATCH and now >= state.deadline_at:
        yield HoldReason.DEADLINE, f"the time for {stage} is over"
    if stage is RolloutPhase.PENDING and (absent := _absent(plan, observation)):
        yield HoldReason.ABSENT, absent
    if stage in _JUDGED:
        yield from _of_the_judge(state, observation)


def _of_the_judge(
    state: RolloutState, observation: Observation
) -> Iterator[tuple[HoldReason, str]]:
    if isinstance(observation.judge_result, JudgeUnavailable):
        yield HoldReason.BLIND, f"no word of the judge: {observation.judge_result.reason}"
    elif state.stage is RolloutPhase.STEPS and (
        why := invalid_reason(state, observation.judge_result)
    ):
        yield HoldReason.INVALID, why


def _absent(plan: RolloutPlan, observation: Observation) -> str:
    """What the plan names and nobody has made; without it a rollout cannot begin."""
    return "; ".join(
        f"Service {part.service} of {track}, which is not there"
        for track, part in plan.tracks.items()
        if not observation.track(track).found
    )


def _unexpected_pods(plan: RolloutPlan, state: RolloutState, observation: Observation) -> str:
    """What runs is what was judged; of a promoted rollout only the canary still matters."""
    for track, known in state.judged.items():
        if state.promoted and track is not Track.CANARY:
            continue
        if names := observation.track(track).unexpected_pods(known):
            return (
                f"{track}: {', '.join(sorted(names))} of {plan.tracks[track].service} "
                f"{'runs' if len(names) == 1 else 'run'} another image or configuration than what "
                "is judged"
            )
    return ""


def _unplaceable(plan: RolloutPlan, observation: Observation) -> str:
    full = {track: observation.track(track).unschedulable for track in plan.tracks}
    pods = sum(full.values())
    if not pods:
        return ""
    where = ", ".join(
        f"{count} of {plan.tracks[track].service}" for track, count in full.items() if count
    )
    return (
        f"no node has room for {pods} pods ({where}): {pods * plan.capacity.gpus_per_pod} GPUs are "
        f"missing; lower the replicas of {plan.tracks[Track.STABLE].service} in the same commit"
    )
