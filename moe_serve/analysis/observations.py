"""Steps 1 and 2 of a comparison: a history becomes tables of blocks, and facts about the run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.analysis.guards import GuardBlocks, observe_guard
from moe_serve.analysis.history import ArmHistory, History
from moe_serve.analysis.noise import Design
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.provenance import Query
from moe_serve.analysis.series import MIXED, CellKind
from moe_serve.analysis.table import BlockTable, block_table, moe_share
from moe_serve.analysis.validity import RequestCounts, Validity, config_differences
from moe_serve.analysis.windows import PairedWindows, WindowCoverage, paired_windows
from moe_serve.metrics.labels import UNKNOWN, WORKER_CONFIG_DIGEST

# No metric has a pod's GPU, so no data can show that the arms swapped theirs.
_DECLARED = ("crossover: the policy declares that the arms swap their GPUs; no metric shows it",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """All that a verdict rests on, beside the analysis plan and the comparison of answers.

    `tables` are of pure decode batches, `mixed` of batches with prefill, of the primary kind.
    `facts` are the configurations that each arm's pods export, by arm and name; `canary_neurons`
    the canary's lost and live neurons; `byte_bound` is log(bytes fetched by stable / by canary)
    for equal work, the most that a kernel that is bound by its bytes can gain. None: not exported.
    `queries` repeat the reads from the source; empty where there was no source.
    """

    tables: Mapping[CellKind, BlockTable]
    mixed: BlockTable
    moe_share: float | None
    facts: Mapping[str, Mapping[str, str]]
    guards: tuple[GuardBlocks, ...]
    stable: WindowCoverage
    canary: WindowCoverage
    stable_pods: int
    canary_pods: int
    canary_neurons: tuple[int, int] | None
    byte_bound: float | None
    validity: Validity
    start: float
    end: float
    origin: str
    queries: tuple[Query, ...] = ()


def observe(history: History, analysis_plan: AnalysisPlan) -> Observations:
    """The tables of blocks in a history, and what decides whether they can be trusted."""
    blocking, primary = analysis_plan.blocking, analysis_plan.policy.primary
    windows = {kind: paired_windows(history, kind, blocking) for kind in CellKind}
    mixed_windows = paired_windows(history, primary, blocking, phase=MIXED)
    tables = {kind: block_table(found, blocking) for kind, found in windows.items()}
    blocks = len(tables[primary].starts)
    provenance = history.provenance
    return Observations(
        tables=tables,
        mixed=block_table(mixed_windows, blocking),
        moe_share=moe_share(
            tables[CellKind.KERNEL], tables[CellKind.STEP], history.stable.moe_layers
        ),
        facts={arm.name: arm.facts for arm in (history.stable, history.canary)},
        guards=tuple(
            observe_guard(
                guard,
                history.stable.service,
                history.canary.service,
                start=history.start,
                seconds=blocking.block_seconds,
                blocks=blocks,
            )
            for guard in analysis_plan.guards
        ),
        stable=windows[primary].stable.coverage,
        canary=windows[primary].canary.coverage,
        stable_pods=len(history.stable.pods),
        canary_pods=len(history.canary.pods),
        canary_neurons=history.canary.neurons,
        byte_bound=_byte_bound(history),
        validity=_validity(history, analysis_plan, windows[primary], blocks),
        start=history.start,
        end=history.end,
        origin=history.origin,
        queries=provenance.queries(history.start, history.end) if provenance else (),
    )


def _validity(
    history: History, analysis_plan: AnalysisPlan, windows: PairedWindows, blocks: int
) -> Validity:
    arms = history.stable, history.canary
    coverage = {"stable": windows.stable.coverage, "canary": windows.canary.coverage}
    expected = _data_expected(history, analysis_plan)
    return Validity(
        deadline_blocks=analysis_plan.interim_analyses.last,
        seen_blocks=blocks,
        block_seconds=analysis_plan.blocking.block_seconds,
        void_share=_void_share(*coverage.values()) if expected else None,
        void_reasons=_void_reasons(coverage),
        config_differences=config_differences(
            history.stable.facts, history.canary.facts, analysis_plan.under_test
        ),
        config_unknown=tuple(
            f"{arm.name}: not every pod exports its {WORKER_CONFIG_DIGEST}"
            for arm in arms
            if UNKNOWN in arm.facts.get(WORKER_CONFIG_DIGEST, UNKNOWN).split(" | ")
        ),
        declared=_DECLARED if analysis_plan.design is Design.CROSSOVER else (),
        dead_arms=tuple(
            f"{arm.name} has no pod with data" for arm in arms if expected and not _has_data(arm)
        ),
        requests=_request_counts(history, analysis_plan.canary_share),
        blind_seconds=_blind_seconds(history.end, *coverage.values()),
        older_seconds=_older_seconds(history),
        analysis_plan_digest=analysis_plan.digest,
    )


def _data_expected(history: History, analysis_plan: AnalysisPlan) -> bool:
    """Whether missing data counts: the first window, before which no pod may have been scraped,
    would not by itself exceed the allowed void share, or the first interim analysis is due.
    """
    share, blocking = analysis_plan.policy.max_void_share, analysis_plan.blocking
    passed = history.end - history.start
    first_analysis = analysis_plan.interim_analyses.first * blocking.block_seconds
    return share == 0 or passed // blocking.window_seconds * share >= 1 or passed >= first_analysis


def _void_share(*arms: WindowCoverage) -> float | None:
    """The worse arm's share: one arm's good windows do not make up for the other's."""
    shares = [arm.void_share for arm in arms if arm.void_share is not None]
    return max(shares, default=None)


def _void_reasons(arms: Mapping[str, WindowCoverage]) -> tuple[str, ...]:
    found = [
        (count, f"{name}: {count} of {coverage.expected} windows: {reason}")
        for name, coverage in arms.items()
        for reason, count in coverage.void.items()
    ]
    return tuple(text for _, text in sorted(found, reverse=True))


def _has_data(arm: ArmHistory) -> bool:
    return any(len(pod.times) for pod in arm.pods)


def _request_counts(history: History, canary_share: float | None) -> RequestCounts | None:
    stable, canary = history.stable.requests, history.canary.requests
    if canary_share is None or stable is None or canary is None:
        return None
    return RequestCounts(stable=stable, canary=canary, canary_share=canary_share)


def _blind_seconds(end: float, *arms: WindowCoverage) -> float | None:
    ages = [end - arm.last_scrape for arm in arms if arm.last_scrape is not None]
    return max(0.0, *ages) if ages else None


def _older_seconds(history: History) -> float | None:
    stable, canary = history.stable.began, history.canary.began
    return None if stable is None or canary is None else canary - stable


def _byte_bound(history: History) -> float | None:
    stable, canary = history.stable.bytes_ratio, history.canary.bytes_ratio
    return None if stable is None or canary is None else math.log(stable / canary)
