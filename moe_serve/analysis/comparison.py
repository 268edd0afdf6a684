"""One comparison, step by step: windows, tables, estimates, checks, verdict."""

from dataclasses import dataclass
from typing import Any

from moe_serve.analysis.checks import check_all
from moe_serve.analysis.estimate import Estimate, Estimates, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate_all
from moe_serve.analysis.guards import conclude_guard
from moe_serve.analysis.history import History
from moe_serve.analysis.judge import decide
from moe_serve.analysis.observations import Observations, observe
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.provenance import Query, behind
from moe_serve.analysis.table import amdahl
from moe_serve.analysis.verdict import Judgement
from moe_serve.quality.finding import (
    QualityFinding,
    accept_if_bound,
    accept_if_policy,
    accept_if_same_pods,
)
from moe_serve.quality.result import NoQuality


def examine(
    history: History, analysis_plan: AnalysisPlan, quality: QualityFinding | NoQuality
) -> "Findings":
    """The findings that a history shows under a plan. Pure: equal inputs give equal findings."""
    observations = observe(history, analysis_plan)
    # Not in `conclude`: the quality in an audit has passed here already.
    return conclude(observations, analysis_plan, accept_if_bound(quality))


def conclude(
    observations: Observations, analysis_plan: AnalysisPlan, quality: QualityFinding | NoQuality
) -> "Findings":
    """The estimates, the checks and the verdict that follow from observations."""
    policy = analysis_plan.policy
    settings = analysis_plan.settings(observations.stable_pods, observations.canary_pods)
    quality = accept_if_same_pods(quality, observations.facts)
    judged_quality = accept_if_policy(policy.quality_policy, quality)
    estimates = estimate_all(observations.tables, observations.mixed, policy.primary, settings)
    guards = [conclude_guard(guard, settings) for guard in observations.guards]
    checks = check_all(
        policy,
        settings,
        estimates,
        judged_quality,
        observations.validity,
        guards=guards,
        byte_bound=observations.byte_bound,
    )
    judgement = decide(
        policy,
        settings,
        estimates,
        checks,
        judged_quality,
        observations.validity,
        neurons=observations.canary_neurons,
    )
    return Findings(
        analysis_plan=analysis_plan,
        quality=quality,
        observations=observations,
        settings=settings,
        estimates=estimates,
        judgement=judgement,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A judgement with the value that each step of the comparison handed to the next.

    `quality` is the comparison of answers as far as it is of the judged pods.
    """

    analysis_plan: AnalysisPlan
    quality: QualityFinding | NoQuality
    observations: Observations
    settings: EstimatorSettings
    estimates: Estimates
    judgement: Judgement

    @property
    def blocks(self) -> int:
        """Blocks so far, void ones included."""
        return self.observations.validity.seen_blocks

    @property
    def explained(self) -> float | None:
        """The step's log gain that the kernel's gain explains, by MoE's share of the step time."""
        share = self.observations.moe_share
        if share is None or not isinstance(self.estimates.kernel, Estimate):
            return None
        return amdahl(self.estimates.kernel.theta, share)

    def to_json(self) -> dict[str, Any]:
        """The body of `/v1/verdict` and of `canary judge --output json`."""
        return {
            **self.judgement.to_json(),
            "equal_weights": _ends(self.estimates.equal),
            "kernel": _ends(self.estimates.kernel),
            "mixed_steps": _ends(self.estimates.mixed),
            "amdahl": {"moe_share": self.observations.moe_share, "explained": self.explained},
            "arms": {name: dict(facts) for name, facts in self.observations.facts.items()},
            "window": {"start": self.observations.start, "end": self.observations.end},
            "blocks": self.blocks,
            "origin": self.observations.origin,
            **({"queries": self._queries()} if self.observations.queries else {}),
            "excluded": {
                "stable": dict(self.observations.stable.void),
                "canary": dict(self.observations.canary.void),
            },
        }

    def behind(self, query: Query) -> tuple[str, ...]:
        """The names of the checks whose numbers rest on a query's samples."""
        checks = (check.name for check in self.judgement.checks)
        return behind(query, checks, self.analysis_plan.policy.primary)

    def _queries(self) -> list[dict[str, object]]:
        return [query.to_json(self.behind(query)) for query in self.observations.queries]


def _ends(found: Estimate | NoEstimate) -> dict[str, float | None]:
    if isinstance(found, NoEstimate):
        return {"theta": None, "lo": None, "hi": None}
    return {"theta": found.theta, "lo": found.lo, "hi": found.hi}
