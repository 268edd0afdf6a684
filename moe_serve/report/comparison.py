"""The report's content from a history and the findings on it."""

import datetime
from collections.abc import Mapping

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.history import ArmHistory, History
from moe_serve.analysis.judge import duration
from moe_serve.analysis.noise import Design
from moe_serve.report.data import ArmSheet, Chapter, Facts, ReportData
from moe_serve.report.published import CLAIM
from moe_serve.report.wording import share

# Labels of the exporter's config_info that the sheet shows in rows of their own.
_PADS = ("hidden_pad", "intermediate_pad")
_PLACED = {"policy", *_PADS}
ASSUMPTIONS = (
    "Equal traffic: the split of the requests is checked, their content is not.",
    "The variation between GPUs and between process starts: the policy states it.",
    "Loads, batch sizes and hours that the comparison did not see.",
)


def comparison_report(history: History, found: Findings, *, created: str) -> ReportData:
    """The report of one comparison in production; `created` is a time stamp as text."""
    return ReportData(
        title="moe-serve canary report",
        created=created,
        chapters=(chapter(history, found),),
        not_proven=ASSUMPTIONS,
        commands=tuple(
            f"# {query.subject.value}, {query.samples} samples, of {query.source}\n"
            f"{query.expression}"
            for query in found.observations.queries
        ),
    )


def chapter(history: History, found: Findings) -> Chapter:
    """The comparison's chapter; a caller with a story of its own replaces title and note."""
    crossover = found.analysis_plan.design is Design.CROSSOVER
    return Chapter(
        title="Canary against stable",
        note=f"{_time(found.observations.start)} to {_time(found.observations.end)}, "
        f"{found.blocks} blocks of {duration(found.analysis_plan.blocking.block_seconds)}.",
        stable=arm_sheet(history.stable),
        canary=arm_sheet(history.canary),
        policy=found.analysis_plan.policy,
        judgement=found.judgement,
        step=found.estimates.step,
        kernel=found.estimates.kernel,
        quality=found.quality,
        dots="one block, within which the arms swap their hardware"
        if crossover
        else "one block, both arms at the same time",
        byte_bound=found.observations.byte_bound,
        circumstances=_circumstances(found),
        published=CLAIM,
    )


def arm_sheet(arm: ArmHistory) -> ArmSheet:
    """One arm's policy, pads, losses and versions, as its pods export them."""
    facts = arm.facts
    lost, live = arm.neurons or (None, None)
    return ArmSheet(
        name=arm.name,
        policy=facts.get("policy", "not known"),
        pads=_pads(facts),
        neurons_lost=lost,
        neurons_live=live,
        bytes_ratio=arm.bytes_ratio,
        facts=(
            *((name, facts[name]) for name in sorted(facts) if name not in _PLACED),
            ("pods", str(len(arm.pods))),
        ),
    )


def _pads(facts: Mapping[str, str]) -> Facts:
    if not all(name in facts for name in _PADS):
        return ()
    return (("sent", "/".join(facts[name] for name in _PADS)),)


def _circumstances(found: Findings) -> Facts:
    seen, plan = found.observations, found.analysis_plan
    hours = (seen.end - seen.start) / 3600
    pod_variation, known = plan.pod_variation, plan.calibration
    crossover = plan.design is Design.CROSSOVER
    excluded = [
        (f"excluded, {name}", f"{count} of {windows.expected} windows: {reason}")
        for name, windows in (("stable", seen.stable), ("canary", seen.canary))
        for reason, count in sorted(windows.void.items())
    ]
    return (
        ("source", seen.origin),
        ("design", "crossover (declared, no series shows the swaps)" if crossover else "parallel"),
        ("pods", f"{seen.stable_pods} stable, {seen.canary_pods} canary"),
        ("cost of the canary", f"{seen.canary_pods * hours:.1f} pod-hours"),
        ("deadline", duration(plan.deadline_seconds)),
        ("standard deviation between GPUs", share(pod_variation.gpu_sd)),
        ("standard deviation between starts", share(pod_variation.start_sd)),
        ("A/A run", f"{known.hours:.0f} h" if known else "none, so the interval is wider"),
        *(excluded or [("excluded", "no window")]),
    )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
