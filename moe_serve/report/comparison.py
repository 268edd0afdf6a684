"""The report of one comparison in production: what a history shows, under its registration."""

import datetime
from collections.abc import Mapping

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.history import ArmHistory, History
from moe_serve.analysis.judge import duration
from moe_serve.analysis.noise import Design
from moe_serve.report.data import ArmSheet, Chapter, Facts, ReportData
from moe_serve.report.published import CLAIM
from moe_serve.report.wording import share

# Labels of the exporter's config_info and build_info that stand in the sheet's own places.
_PADS = ("hidden_pad", "intermediate_pad")
_PLACED = {"policy", *_PADS}
ASSUMPTIONS = (
    "That both arms' requests were of the same kind: the split is checked, what was asked is not.",
    "That the spread of GPUs and of process starts is as the rules state it.",
    "Nothing about loads, batch sizes and hours that the comparison did not see.",
)


def comparison_report(history: History, found: Findings, *, created: str) -> ReportData:
    """All that the page shows. Pure: `created` is a time stamp as text."""
    chapter = Chapter(
        title="Canary against stable",
        note=f"{_time(found.observed.start)} to {_time(found.observed.end)}, {found.blocks} blocks "
        f"of {duration(found.analysis_plan.blocking.block_seconds)}.",
        stable=_sheet(history.stable),
        canary=_sheet(history.canary),
        policy=found.analysis_plan.policy,
        judgement=found.judgement,
        step=found.step,
        kernel=found.kernel,
        quality=found.quality,
        dots="one block, both arms at the same time",
        published=CLAIM,
    )
    return ReportData(
        title="moe-serve canary report",
        created=created,
        chapters=(chapter,),
        comparison=_comparison(found),
        not_proven=ASSUMPTIONS,
        commands=tuple(
            f"# {query.subject.value}, {query.samples} samples, of {query.source}\n"
            f"{query.expression}"
            for query in found.observed.queries
        ),
    )


def _sheet(arm: ArmHistory) -> ArmSheet:
    facts = arm.facts
    lost, live = arm.neurons or (None, None)
    return ArmSheet(
        name=arm.name,
        policy=facts.get("policy", "not known"),
        pads=_pads(facts),
        neurons_lost=lost,
        neurons_live=live,
        bytes_ratio=None,
        versions=tuple((name, facts[name]) for name in sorted(facts) if name not in _PLACED),
        environment=(("pods", str(len(arm.pods))),),
    )


def _pads(facts: Mapping[str, str]) -> Facts:
    if not all(name in facts for name in _PADS):
        return ()
    return (("sent", "/".join(facts[name] for name in _PADS)),)


def _comparison(found: Findings) -> Facts:
    seen, rules = found.observed, found.analysis_plan
    hours = (seen.end - seen.start) / 3600
    pod_variation, known = rules.pod_variation, rules.calibration
    crossover = rules.design is Design.CROSSOVER
    excluded = [
        (f"excluded, {name}", f"{count} of {windows.expected} windows: {reason}")
        for name, windows in (("stable", seen.stable), ("canary", seen.canary))
        for reason, count in sorted(windows.void.items())
    ]
    return (
        ("source", seen.origin),
        ("design", "crossover of GPUs (declared, not seen)" if crossover else "parallel arms"),
        ("pods", f"{seen.stable_pods} stable, {seen.canary_pods} canary"),
        ("cost of the canary", f"{seen.canary_pods * hours:.1f} pod-hours"),
        ("deadline", duration(rules.deadline_seconds)),
        ("spread between GPUs", share(pod_variation.gpu_sd)),
        ("spread between starts", share(pod_variation.start_sd)),
        ("A/A run", f"{known.hours:.0f} h" if known else "none: the interval is wider for it"),
        *(excluded or [("excluded", "no window")]),
    )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
