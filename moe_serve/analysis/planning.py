"""Before a canary starts: can it be decided, with how many pods, in which time."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from moe_serve.analysis.boundary import joint_quantile, noise_share
from moe_serve.analysis.noise import SAFETY, SAFETY_WITHOUT_CALIBRATION
from moe_serve.analysis.plan import AnalysisPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What so many pods an arm can hope for, if the canary's true gain is the expected one.

    `power` is the chance of a promotion by the deadline; `hours` the time by which half of the
    canaries are promoted, None if the deadline comes first. `smallest_gain` is the log gain that
    is promoted with the wanted power by the deadline.
    """

    pods: int
    power: float
    hours: float | None
    smallest_gain: float


def outlook(
    analysis_plan: AnalysisPlan,
    *,
    block_variance: float,
    gain: float,
    pods: int,
    wanted_power: float = 0.8,
) -> Outlook:
    """A normal approximation at the deadline's look; the error table has it by simulation.

    `block_variance` is one block's, of the pooled log ratio; `gain` the expected log gain.
    """
    interim_analyses, policy = analysis_plan.interim_analyses, analysis_plan.policy
    offset, freedom = analysis_plan.pod_variation.offset(analysis_plan.design, pods, pods)
    safety = SAFETY if analysis_plan.calibration else SAFETY_WITHOUT_CALIBRATION
    used = safety * block_variance
    quantile = joint_quantile(
        offset / used if used else math.inf, freedom, interim_analyses, alpha=policy.alpha_promote
    )

    def needed(blocks: int) -> float:
        return policy.log_margin + quantile * math.sqrt(offset + used * noise_share(blocks))

    def error(blocks: int) -> float:
        return math.sqrt(offset + block_variance / blocks)

    last = interim_analyses.last
    half = next((k for k in range(interim_analyses.first, last + 1) if gain >= needed(k)), None)
    normal = NormalDist()
    return Outlook(
        pods=pods,
        power=normal.cdf((gain - needed(last)) / error(last)),
        hours=None if half is None else half * analysis_plan.blocking.block_seconds / 3600,
        smallest_gain=needed(last) + normal.inv_cdf(wanted_power) * error(last),
    )
