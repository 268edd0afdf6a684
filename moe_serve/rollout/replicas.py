"""The replica changes that a person or Git makes: the controller prints them, and waits."""

from moe_serve.rollout.plan import Plan
from moe_serve.rollout.state import Phase, State
from moe_serve.rollout.weights import Arm


def replica_diff(plan: Plan, state: State) -> tuple[str, ...]:
    """One line a release, `service: replicas 3 -> 1 (why)`; empty when Git need not change."""
    stable, canary = plan.arms[Arm.STABLE], plan.arms[Arm.CANARY]
    grown, warm = plan.promotion.replicas, plan.promotion.warm_replicas
    match state.stage:
        case Phase.PROMOTION | Phase.WATCH:
            kept = "stays warm through the watch" if warm else "was replaced"
            lines = [
                _line(canary.service, canary.replicas, grown, "promoted; the judged pods stay"),
                _line(stable.service, stable.replicas, warm, kept),
                *_baseline(plan),
            ]
        case Phase.DONE:
            lines = [_line(stable.service, warm, 0, "the watch is over")]
        case Phase.ROLLBACK | Phase.ROLLED_BACK if state.promoted:
            lines = [
                _line(stable.service, warm, max(grown, stable.replicas), "reverted"),
                _line(canary.service, grown, 0, "at weight 0 already"),
            ]
        case Phase.ROLLBACK | Phase.ROLLED_BACK:
            given_back = sum(
                part.replicas for arm, part in plan.arms.items() if arm is not Arm.STABLE
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


def _baseline(plan: Plan) -> list[str]:
    arm = plan.arms.get(Arm.BASELINE)
    return [_line(arm.service, arm.replicas, 0, "no longer compared")] if arm else []


def _line(service: str, before: int, after: int, why: str) -> str:
    return "" if before == after else f"{service}: replicas {before} -> {after} ({why})"
