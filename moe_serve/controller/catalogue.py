"""Every metric of the rollout controller; `docs/metrics.md` is made of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric, its name without `moe_serve_rollout_`."""

    help: str
    type: str = "gauge"
    labels: tuple[str, ...] = ()


def _one_of(label: str) -> Metric:
    return Metric(help=f"1 for the {label} that holds now.", labels=(label,))


PREFIX = "moe_serve_rollout_"
METRICS = {
    "active": Metric(help="1: it writes; 0: shadow."),
    "arm_info": Metric(
        help="Which arm, by its pods' label, has which role in the plan; 1.", labels=("role", "arm")
    ),
    "reconciles_total": Metric(help="InterimAnalyses at the cluster.", type="counter"),
    "errors_total": Metric(help="InterimAnalyses that failed.", type="counter"),
    "last_look_timestamp_seconds": Metric(help="When it looked last."),
    "leader": Metric(help="1: this controller leads."),
    "reason": Metric(
        help="1 for the trouble that keeps the rollout from going on; `fault` too while looks "
        "fail.",
        labels=("reason",),
    ),
    "phase": _one_of("phase"),
    "verdict": _one_of("verdict"),
    "weight_ratio": Metric(
        help="Share of the requests that an arm, by its role, is to get.", labels=("arm",)
    ),
    "weights_in_force": Metric(help="1: the route shows them."),
    "step": Metric(help="Step, from 1; 0 before the first."),
    "revision": Metric(help="Rises with every change."),
}
