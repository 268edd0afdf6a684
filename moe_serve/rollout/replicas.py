"""The replica changes that a person or Git makes: the controller prints them, and waits."""

from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.state import RolloutPhase, RolloutState
from moe_serve.rollout.weights import Track


def replica_diff(plan: RolloutPlan, state: RolloutState) -> tuple[str, ...]:
    """One line a release, `service: replicas 3 -> 1 (why)`; empty when Git need not change."""
    stable, canary = plan.tracks[Track.STABLE], plan.tracks[Track.CANARY]
    grown, warm = plan.promotion.replicas, plan.promotion.warm_replicas
    match state.stage:
        case RolloutPhase.PROMOTION | RolloutPhase.WATCH:
            kept = "stays warm through the watch" if warm else "was replaced"
            lines = [
                _line(canary.service, canary.replicas, grown, "promoted; the judged pods stay"),
                _line(stable.service, stable.replicas, warm, kept),
                *_baseline(plan),
            ]
        case RolloutPhase.DONE:
            lines = [_line(stable.service, warm, 0, "the watch is over")]
        case RolloutPhase.ROLLBACK | RolloutPhase.ROLLED_BACK if state.promoted:
            lines = [
                _line(stable.service, warm, max(grown, stable.replicas), "reverted"),
                _line(canary.service, grown, 0, "at weight 0 already"),
            ]
        case RolloutPhase.ROLLBACK | RolloutPhase.ROLLED_BACK:
            given_back = sum(
                part.replicas for track, part in plan.tracks.items() if track is not Track.STABLE
            )
            lines = [
                _line(canary.service, canary.replicas, 0, "at weight 0"),
                *_baseline(plan),
                _line(
                    stable.service,
                    stable.replicas,
                    stable.replicas + given_back,
                    "the others' GPUs",
                ),
            ]
        case _:
            lines = []
    return tuple(line for line in lines if line)


def _baseline(plan: RolloutPlan) -> list[str]:
    track = plan.tracks.get(Track.BASELINE)
    return [_line(track.service, track.replicas, 0, "no longer compared")] if track else []


def _line(service: str, before: int, after: int, why: str) -> str:
    return "" if before == after else f"{service}: replicas {before} -> {after} ({why})"
