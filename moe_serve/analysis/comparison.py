"""One comparison as it was registered, and what the judge says of a history under it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.guards import (
    Guard,
    GuardBlocks,
    conclude_guard,
    observe_guard,
)
from moe_serve.analysis.history import History
from moe_serve.analysis.judge import judge
from moe_serve.analysis.noise import (
    FIRST_LOOK,
    FIRST_LOOK_WITHOUT_CALIBRATION,
    Calibration,
    Design,
    PodVariation,
)
from moe_serve.analysis.policy import Policy, analysis_plan_digest
from moe_serve.analysis.provenance import Query, behind
from moe_serve.analysis.series import DECODE, MIXED, Cell, CellKind
from moe_serve.analysis.table import BlockTable, Estimand, amdahl, moe_share
from moe_serve.analysis.validity import RequestCounts, Validity
from moe_serve.analysis.verdict import Judgement
from moe_serve.analysis.windows import BlockingScheme, Windows, tabulate
from moe_serve.errors import UsageError
from moe_serve.metrics.labels import UNKNOWN, WORKER_CONFIG_DIGEST
from moe_serve.quality.finding import QualityFinding, accept_if_bound, accept_if_same_pods
from moe_serve.quality.result import NoQuality

# No series tells which GPU a pod had, so nothing shows that any was swapped.
_DECLARED = ("crossover: that the arms swap their GPUs is declared, not seen",)
# What tells two arms apart by design, whatever the comparison is about.
_NAMES = ("pod", "instance")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """All that is fixed before a comparison starts; its digest is written down with the start.

    `under_test` names the facts in which the arms may differ. `canary_share` is which share of
    both arms' requests the canary is to get; None leaves the split unchecked. `weights` are shares
    of busy time by cell of the primary kind; None takes the stable arm's in this comparison.
    `batches` are the sizes that decide, each of which must be covered; None: all that are exact.
    """

    policy: Policy = field(default_factory=Policy)
    blocking: BlockingScheme = field(default_factory=BlockingScheme)
    deadline_seconds: float = 12 * 3600.0
    design: Design = Design.PARALLEL
    pod_variation: PodVariation = field(default_factory=PodVariation)
    calibration: Calibration | None = None
    under_test: tuple[str, ...] = ()
    canary_share: float | None = None
    guards: tuple[Guard, ...] = ()
    weights: Mapping[Cell, float] | None = None
    batches: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be judged."""
        known = self.calibration
        if known is not None and known.block_seconds != self.blocking.block_seconds:
            raise UsageError(
                f"the A/A run was taken with blocks of {known.block_seconds:g} s, the comparison "
                f"has blocks of {self.blocking.block_seconds:g} s: make them equal"
            )
        if not self.interim_analyses.possible:
            raise UsageError(
                f"cannot be decided: {self.interim_analyses.first} blocks of "
                f"{self.blocking.block_seconds:g} s are needed before the first interim analysis, "
                f"the deadline allows {self.interim_analyses.last}"
            )
        if self.canary_share is not None and not 0 < self.canary_share < 1:
            raise UsageError(f"canary_share is {self.canary_share}; allowed: 0 < x < 1")

    @property
    def interim_analyses(self) -> InterimAnalyses:
        """After a few blocks, then after each, up to the deadline."""
        first = FIRST_LOOK if self.calibration else FIRST_LOOK_WITHOUT_CALIBRATION
        return InterimAnalyses(
            first=first, last=int(self.deadline_seconds // self.blocking.block_seconds)
        )

    def settings(self, stable_pods: int, canary_pods: int) -> EstimatorSettings:
        """What the numbers rest on, for arms of so many pods."""
        return EstimatorSettings(
            interim_analyses=self.interim_analyses,
            pod_variation=self.pod_variation,
            design=self.design,
            stable_pods=max(1, stable_pods),
            canary_pods=max(1, canary_pods),
            calibration=self.calibration,
            weights=self.weights,
            batches=self.batches,
            alpha_low=self.policy.alpha_promote,
            # Speed and each guard may roll back, so they share the chance of doing so wrongly.
            alpha_high=self.policy.alpha_rollback / (1 + len(self.guards)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A judgement with the estimates beside it, and all that it rests on.

    `equal` weights all cells alike, as the claim was published; it is told and decides nothing.
    `mixed` is of batches with prefill in them, which no batch size alone describes: a loss there
    forbids a promotion, a gain earns none.
    """

    judgement: Judgement
    settings: EstimatorSettings
    step: Estimate | NoEstimate
    kernel: Estimate | NoEstimate
    equal: Estimate | NoEstimate
    mixed: Estimate | NoEstimate
    observed: "Observations"
    quality: QualityFinding | NoQuality
    analysis_plan: AnalysisPlan

    @property
    def blocks(self) -> int:
        """Blocks that are over, void ones included."""
        return self.observed.validity.seen_blocks

    @property
    def explained(self) -> float | None:
        """The step's log gain that the kernel's alone would make, by MoE's share of the step."""
        share = self.observed.moe_share
        if share is None or not isinstance(self.kernel, Estimate):
            return None
        return amdahl(self.kernel.theta, share)

    def to_json(self) -> dict[str, Any]:
        """The verdict, with the claim's estimate and where the numbers are from."""
        return {
            **self.judgement.to_json(),
            "equal_weights": _ends(self.equal),
            "kernel": _ends(self.kernel),
            "mixed_steps": _ends(self.mixed),
            "amdahl": {"moe_share": self.observed.moe_share, "explained": self.explained},
            "arms": {name: dict(facts) for name, facts in self.observed.facts.items()},
            "window": {"start": self.observed.start, "end": self.observed.end},
            "blocks": self.blocks,
            "origin": self.observed.origin,
            **({"queries": self._queries()} if self.observed.queries else {}),
            "excluded": {
                "stable": dict(self.observed.stable.void),
                "canary": dict(self.observed.canary.void),
            },
        }

    def behind(self, query: Query) -> tuple[str, ...]:
        """The names of the checks whose number rests on a query's samples."""
        return behind(query, self.judgement.checks, self.analysis_plan.policy.primary)

    def _queries(self) -> list[dict[str, object]]:
        return [query.to_json(self.behind(query)) for query in self.observed.queries]


def _ends(found: Estimate | NoEstimate) -> dict[str, float | None]:
    if isinstance(found, NoEstimate):
        return {"theta": None, "lo": None, "hi": None}
    return {"theta": found.theta, "lo": found.lo, "hi": found.hi}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What is left of a history once it is cut into blocks: all that a verdict rests on, beside
    the registration and the answers' comparison.

    `tables` are of pure decode batches, `mixed` of those with prefill, of the primary kind.
    `facts` are what each arm's pods say of their configuration, by arm and name;
    `canary_neurons` the canary's lost and live ones; `byte_bound` is log(bytes fetched by stable /
    by canary) for equal work, the most that a kernel that is bound by its bytes can gain; None
    where no pod exports it. `queries` are what the
    source was asked; none where there was no source, or an audit is of a version that kept none.
    """

    tables: Mapping[CellKind, BlockTable]
    mixed: BlockTable
    moe_share: float | None
    facts: Mapping[str, Mapping[str, str]]
    guards: tuple[GuardBlocks, ...]
    stable: Windows
    canary: Windows
    stable_pods: int
    canary_pods: int
    canary_neurons: tuple[int, int] | None
    byte_bound: float | None
    validity: Validity
    start: float
    end: float
    origin: str
    queries: tuple[Query, ...] = ()


def examine(
    history: History, analysis_plan: AnalysisPlan, quality: QualityFinding | NoQuality
) -> Findings:
    """Judge what a history shows. Pure: equal inputs give equal findings."""
    # Not where an audit is replayed: what it holds was bound, or is older than the question.
    return conclude(observe(history, analysis_plan), analysis_plan, accept_if_bound(quality))


def observe(history: History, analysis_plan: AnalysisPlan) -> Observations:
    """BlockingScheme a history into blocks, and gather what tells whether they can be trusted."""
    blocking, policy = analysis_plan.blocking, analysis_plan.policy
    tables = {kind: tabulate(history, kind, blocking, phase=DECODE) for kind in CellKind}
    table, stable, canary = tables[policy.primary]
    begun = _begun(history, analysis_plan)
    validity = Validity(
        deadline_blocks=analysis_plan.interim_analyses.last,
        seen_blocks=len(table.starts),
        block_seconds=blocking.block_seconds,
        void_share=_void_share(stable, canary) if begun else None,
        void_reasons=_void_reasons(("stable", stable), ("canary", canary)),
        config_differences=differences(history, analysis_plan.under_test),
        config_unknown=_unknown(history),
        declared=_DECLARED if analysis_plan.design is Design.CROSSOVER else (),
        dead_arms=_silent(history) if begun else (),
        requests=_requests(history, analysis_plan.canary_share),
        blind_seconds=_blind(history, stable, canary),
        older_seconds=_older(history),
        analysis_plan_digest=analysis_plan_digest(policy, _plan_json(analysis_plan)),
    )
    return Observations(
        tables={kind: tables[kind][0] for kind in CellKind},
        mixed=tabulate(history, policy.primary, blocking, phase=MIXED)[0],
        moe_share=moe_share(
            tables[CellKind.KERNEL][0], tables[CellKind.STEP][0], history.stable.moe_layers
        ),
        facts={arm.name: arm.facts for arm in (history.stable, history.canary)},
        guards=tuple(
            observe_guard(
                guard,
                history.stable.service,
                history.canary.service,
                start=history.start,
                seconds=blocking.block_seconds,
                blocks=len(table.starts),
            )
            for guard in analysis_plan.guards
        ),
        stable=stable,
        canary=canary,
        stable_pods=len(history.stable.pods),
        canary_pods=len(history.canary.pods),
        canary_neurons=history.canary.neurons,
        byte_bound=_byte_bound(history),
        validity=validity,
        start=history.start,
        end=history.end,
        origin=history.origin,
        queries=history.provenance.queries(history.start, history.end)
        if history.provenance
        else (),
    )


def conclude(
    seen: Observations, analysis_plan: AnalysisPlan, quality: QualityFinding | NoQuality
) -> Findings:
    """The verdict on what was observed, with the estimates beside it."""
    policy, quality = analysis_plan.policy, accept_if_same_pods(quality, seen.facts)
    settings = analysis_plan.settings(seen.stable_pods, seen.canary_pods)
    step, kernel = (
        # Registered weights are of the primary kind's cells; the other has its own mix.
        estimate(
            seen.tables[kind],
            kind,
            settings if kind is policy.primary else replace(settings, weights=None),
        )
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
    table = seen.tables[policy.primary]
    mixed = estimate(seen.mixed, policy.primary, replace(settings, weights=None, batches=None))
    return Findings(
        judgement=judge(
            policy,
            step,
            kernel,
            quality,
            seen.validity,
            settings=settings,
            mixed=mixed,
            guards=[conclude_guard(guard, settings) for guard in seen.guards],
            neurons=seen.canary_neurons,
            byte_bound=seen.byte_bound,
        ),
        settings=settings,
        step=step,
        kernel=kernel,
        equal=estimate(table, policy.primary, settings, estimand=Estimand.EQUAL),
        mixed=mixed,
        observed=seen,
        quality=quality,
        analysis_plan=analysis_plan,
    )


def _begun(history: History, analysis_plan: AnalysisPlan) -> bool:
    """Whether data may be asked for: the first window, before which no pod may have been scraped,
    would not by itself be too much of what is void. At the first look it is, whatever the share.
    """
    share, blocking = analysis_plan.policy.max_void_share, analysis_plan.blocking
    passed = history.end - history.start
    first_look = analysis_plan.interim_analyses.first * blocking.block_seconds
    return share == 0 or passed // blocking.window_seconds * share >= 1 or passed >= first_look


def _void_share(*arms: Windows) -> float | None:
    """The worse arm's share: one arm's good windows do not make up for the other's."""
    shares = [arm.void_share for arm in arms if arm.void_share is not None]
    return max(shares, default=None)


def _void_reasons(*arms: tuple[str, Windows]) -> tuple[str, ...]:
    found = [
        (count, f"{name}: {count} of {windows.expected} windows: {reason}")
        for name, windows in arms
        for reason, count in windows.void.items()
    ]
    return tuple(text for _, text in sorted(found, reverse=True))


def differences(history: History, under_test: tuple[str, ...]) -> tuple[str, ...]:
    """The facts in which the arms differ though they are not under test, with both values."""
    stable, canary = history.stable.facts, history.canary.facts
    left_out = {*under_test, *_NAMES}
    return tuple(
        f"{name}: {stable.get(name, 'unknown')} and {canary.get(name, 'unknown')}"
        for name in sorted(stable.keys() | canary.keys())
        if name not in left_out and stable.get(name) != canary.get(name)
    )


def _unknown(history: History) -> tuple[str, ...]:
    return tuple(
        f"{arm.name}: not every pod states its {WORKER_CONFIG_DIGEST}"
        for arm in (history.stable, history.canary)
        if UNKNOWN in arm.facts.get(WORKER_CONFIG_DIGEST, UNKNOWN).split(" | ")
    )


def _silent(history: History) -> tuple[str, ...]:
    return tuple(
        f"{arm.name} has no pod with data"
        for arm in (history.stable, history.canary)
        if not any(len(pod.times) for pod in arm.pods)
    )


def _requests(history: History, canary_share: float | None) -> RequestCounts | None:
    stable, canary = history.stable.requests, history.canary.requests
    if canary_share is None or stable is None or canary is None:
        return None
    return RequestCounts(stable=stable, canary=canary, canary_share=canary_share)


def _blind(history: History, *arms: Windows) -> float | None:
    ages = [history.end - arm.last for arm in arms if arm.last is not None]
    return max(0.0, *ages) if ages else None


def _byte_bound(history: History) -> float | None:
    stable, canary = history.stable.bytes_ratio, history.canary.bytes_ratio
    return None if stable is None or canary is None else math.log(stable / canary)


def _older(history: History) -> float | None:
    stable, canary = history.stable.began, history.canary.began
    return None if stable is None or canary is None else canary - stable


def _plan_json(analysis_plan: AnalysisPlan) -> dict[str, Any]:
    """The registration by its names, in JSON's own types."""
    known, blocking = analysis_plan.calibration, analysis_plan.blocking
    pod_variation = analysis_plan.pod_variation
    return {
        "cut": [blocking.block_seconds, blocking.window_seconds, blocking.min_count],
        "deadline_seconds": analysis_plan.deadline_seconds,
        "design": analysis_plan.design.value,
        "spread": [
            pod_variation.gpu_sd,
            str(pod_variation.gpu_freedom),
            pod_variation.start_sd,
            str(pod_variation.start_freedom),
        ],
        "calibration": known.to_json() if known else None,
        "under_test": list(analysis_plan.under_test),
        "canary_share": analysis_plan.canary_share,
        "guards": [[guard.name, guard.margin] for guard in analysis_plan.guards],
        "weights": {str(cell): share for cell, share in (analysis_plan.weights or {}).items()},
        **({} if analysis_plan.batches is None else {"batches": list(analysis_plan.batches)}),
    }
