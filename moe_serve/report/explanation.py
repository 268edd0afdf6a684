"""The explanation of a verdict as plain text, for `canary explain`."""

import datetime
import math
from collections.abc import Mapping

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.verdict import Check, Severity


def explain(found: Findings) -> str:
    """Every number with its threshold, the window, the samples' queries and the arms' facts."""
    judgement, seen = found.judgement, found.observations
    lines = [
        f"{judgement.verdict.value}: {judgement.reason}",
        "",
        f"window    {_time(seen.start)} to {_time(seen.end)}, {found.blocks} blocks",
        f"source    {seen.origin} (evidence {judgement.graded})",
        f"plan      {judgement.analysis_plan_digest}",
        "",
        *_queries(found),
        "checks",
        *(_check(check) for check in judgement.checks),
        "",
        *_estimate("step rate, the site's own mix", found.estimates.step),
        *_estimate("kernel rate, the site's own mix", found.estimates.kernel),
        *_explained(found),
        *_estimate("equal weights over cells (the published claim's)", found.estimates.equal),
        *_estimate(
            "batches with prefill in them (a clear loss forbids a promotion)", found.estimates.mixed
        ),
        "arms",
        *(f"  {name}: {_facts(facts)}" for name, facts in seen.facts.items()),
        "",
        "excluded windows",
        *(
            f"  {name}: {count} of {windows.expected}: {reason}"
            for name, windows in (("stable", seen.stable), ("canary", seen.canary))
            for reason, count in sorted(windows.void.items())
        ),
    ]
    if not (seen.stable.void or seen.canary.void):
        lines.append("  none")
    return "\n".join(lines)


def _queries(found: Findings) -> list[str]:
    """The queries that fetch the samples behind the checks' numbers again."""
    queries = found.observations.queries
    lines = [] if not queries else [f"queries, of {queries[0].source}"]
    for query in queries:
        checks = ", ".join(found.behind(query)) or "no check"
        lines += [
            f"  {query.subject.value}: {query.samples} samples of {query.series} series, "
            f"behind {checks}",
            f"    {query.expression}",
        ]
    return [*lines, ""] if lines else []


def _explained(found: Findings) -> list[str]:
    """The step's gain that the kernel's gain explains, by Amdahl's law."""
    share, explained = found.observations.moe_share, found.explained
    if share is None or explained is None or isinstance(found.estimates.step, NoEstimate):
        return []
    return [
        f"  MoE is about {share:.0%} of stable's step: the kernel's gain alone "
        f"explains {_percent(explained)} of a step, "
        f"measured: {_percent(found.estimates.step.theta)}",
        "",
    ]


def _facts(facts: Mapping[str, str]) -> str:
    return (
        ", ".join(f"{name} {facts[name]}" for name in sorted(facts))
        or "no pod exports its configuration"
    )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _check(check: Check) -> str:
    sign = "ok  " if check.passed else "FAIL"
    if check.severity is Severity.WARNING:
        sign = "-   " if check.passed else "WARN"
    return (
        f"  {sign} {check.name:20} {_number(check.number):>10} against "
        f"{_number(check.threshold):>10}  {check.detail}"
    )


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.5g}"


def _estimate(title: str, found: Estimate | NoEstimate) -> list[str]:
    if isinstance(found, NoEstimate):
        return [title, f"  none: {found.reason}", ""]
    lines = [
        title,
        f"  {_percent(found.theta)} ({_percent(found.lo)} to {_percent(found.hi)}, "
        f"{found.confidence:.0%} at every analysis), {found.blocks} blocks, covers "
        f"{found.covered_weight:.0%} of the busy time",
        f"  a block's noise {found.in_run_sd:.2%} here, {found.block_sd:.2%} used; equal arms "
        f"differ by {found.offset_sd:.2%} ({_freedom(found.offset_freedom)})",
        *(
            f"  {cell.cell!s:28} weight {cell.weight:6.1%}  {_percent(cell.theta):>8} "
            f"({_percent(cell.lo)} to {_percent(cell.hi)}), {cell.blocks} blocks"
            for cell in found.cells
        ),
        *(
            f"  {lost.cell!s:28} weight {lost.weight:6.1%}  not covered ({lost.blocks} blocks)"
            for lost in found.uncovered
        ),
    ]
    return [*lines, ""]


def _percent(log_ratio: float) -> str:
    return f"{math.expm1(log_ratio):+.1%}" if math.isfinite(log_ratio) else "unknown"


def _freedom(freedom: float) -> str:
    return "declared" if math.isinf(freedom) else f"{freedom:.0f} degrees of freedom"
