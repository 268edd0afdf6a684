"""What keeps a rollout from going on, and what ends it at once."""

import math
from collections.abc import Iterator

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import Outcome
from moe_serve.rollout.observation import NoWord, Observation, Word
from moe_serve.rollout.plan import Plan
from moe_serve.rollout.route import standing
from moe_serve.rollout.state import Concern, Phase, State, Trouble
from moe_serve.rollout.weights import Arm

_JUDGED = (Phase.QUALITY, Phase.STEPS, Phase.PROMOTION, Phase.WATCH)


def alarm(state: State, seen: Observation) -> str:
    """Why the canary must go, now; empty if it need not."""
    if seen.person.abort == state.rollout:
        return "a person aborted it"
    word = seen.word
    if isinstance(word, NoWord) or state.stage not in _JUDGED:
        return ""
    if word.quality is Outcome.FAILED:
        return f"the answers differ: {word.quality_reason}"
    # Before any traffic the judge has nothing of this rollout but the answers to speak of.
    if word.verdict is Verdict.ROLLBACK and state.stage is not Phase.QUALITY:
        return f"the judge: {word.reason}"
    return ""


def concern_of(plan: Plan, state: State, seen: Observation, now: float) -> Concern | None:
    """The most serious trouble that is there now; `since` is when it was first seen."""
    trouble, detail = next(_troubles(plan, state, seen, now), (None, ""))
    if trouble is None:
        return None
    known = state.concern
    if known is None or known.trouble is not trouble:
        return Concern(trouble=trouble, since=now, detail=detail)
    # A judge's sentences change with every look; what a person is told should not.
    kept = known.detail if trouble in (Trouble.BLIND, Trouble.INVALID) else detail
    return Concern(trouble=trouble, since=known.since, detail=kept)


def patience(plan: Plan, trouble: Trouble) -> float:
    """Seconds for which it may last before the rollout is held."""
    return {
        Trouble.BLIND: plan.patience.blind_seconds,
        Trouble.INVALID: plan.patience.invalid_seconds,
        Trouble.UNPLACEABLE: plan.patience.unplaceable_seconds,
        Trouble.ABSENT: math.inf,  # the phase's own deadline is enough
    }.get(trouble, 0.0)


def doubt(state: State, word: Word) -> str:
    """Why the judge's comparison is not to be trusted; empty if it is."""
    if word.verdict is Verdict.INVALID:
        return f"the comparison is invalid: {word.reason}"
    if state.rules and word.rules != state.rules:
        return f"the judge's rules changed from {state.rules} to {word.rules}"
    if state.comparison_since is not None and word.since not in (None, state.comparison_since):
        return (
            "the judge's comparison began anew: start the judge with the time of the first "
            "(--start), or what was looked at before is forgotten"
        )
    return ""


def _troubles(
    plan: Plan, state: State, seen: Observation, now: float
) -> Iterator[tuple[Trouble, str]]:
    if strangers := _strangers(plan, state, seen):
        yield Trouble.IDENTITY, strangers
    if drift := standing(plan, state, seen).drift:
        yield Trouble.DRIFT, drift
    stage = state.stage
    if stage in (Phase.PENDING, Phase.QUALITY, Phase.STEPS) and (full := _unplaceable(plan, seen)):
        yield Trouble.UNPLACEABLE, full
    if stage is not Phase.WATCH and now >= state.deadline_at:
        yield Trouble.DEADLINE, f"the time for {stage} is over"
    if stage is Phase.PENDING and (absent := _absent(plan, seen)):
        yield Trouble.ABSENT, absent
    if stage in _JUDGED:
        yield from _of_the_judge(state, seen)


def _of_the_judge(state: State, seen: Observation) -> Iterator[tuple[Trouble, str]]:
    if isinstance(seen.word, NoWord):
        yield Trouble.BLIND, f"no word of the judge: {seen.word.reason}"
    elif state.stage is Phase.STEPS and (why := doubt(state, seen.word)):
        yield Trouble.INVALID, why


def _absent(plan: Plan, seen: Observation) -> str:
    """What the plan names and nobody has made; without it a rollout cannot begin."""
    return "; ".join(
        f"Service {part.service} of {arm}, which is not there"
        for arm, part in plan.arms.items()
        if not seen.seen(arm).found
    )


def _strangers(plan: Plan, state: State, seen: Observation) -> str:
    """What runs is what was judged; of a promoted rollout only the canary still matters."""
    for arm, known in state.judged.items():
        if state.promoted and arm is not Arm.CANARY:
            continue
        if names := seen.seen(arm).strangers(known):
            return (
                f"{arm}: {', '.join(sorted(names))} of {plan.arms[arm].service} "
                f"{'runs' if len(names) == 1 else 'run'} another image or configuration than what "
                "is judged"
            )
    return ""


def _unplaceable(plan: Plan, seen: Observation) -> str:
    full = {arm: seen.seen(arm).unschedulable for arm in plan.arms}
    pods = sum(full.values())
    if not pods:
        return ""
    where = ", ".join(
        f"{count} of {plan.arms[arm].service}" for arm, count in full.items() if count
    )
    return (
        f"no node has room for {pods} pods ({where}): {pods * plan.capacity.gpus_per_pod} GPUs are "
        f"missing; lower the replicas of {plan.arms[Arm.STABLE].service} in the same commit"
    )
