"""The report's tables as rows of text, for the page and for Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moe_serve.analysis.estimate import CellEstimate, Estimate, NoEstimate
from moe_serve.analysis.verdict import Check, Severity
from moe_serve.quality.finding import QualityFinding, QualityMode
from moe_serve.quality.result import NoQuality
from moe_serve.report.data import ArmSheet, CalibrationSummary, Chapter, Facts
from moe_serve.report.wording import (
    bound,
    check_value,
    nats,
    neurons,
    percent,
    rate_row,
    share,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as plain text, unescaped; the first cell of a row names the row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def arms(chapter: Chapter) -> Table:
    """Both arms side by side: policy, pads, lost neurons, bytes, versions, pods."""
    sheets = (chapter.stable, chapter.canary)
    columns = [_sheet(sheet) for sheet in sheets]
    labels = dict.fromkeys(label for column in columns for label in column)
    return Table(
        caption="Pads are hidden/intermediate, in elements of one rank. Bytes are those that the "
        "kernel fetches over those that the live sizes need.",
        head=("", *(sheet.name for sheet in sheets)),
        rows=tuple(
            (label, *(column.get(label, "not set") for column in columns)) for label in labels
        ),
    )


def _sheet(arm: ArmSheet) -> dict[str, str]:
    return {
        "policy": arm.policy,
        **{f"pads, {label}": value for label, value in arm.pads},
        "neurons lost": neurons(arm),
        **({"bytes fetched": f"{arm.bytes_ratio:.3f}"} if arm.bytes_ratio is not None else {}),
        **dict(arm.facts),
    }


def checks(chapter: Chapter) -> Table:
    """The judge's checks: number, threshold, result."""
    return Table(
        caption="The judge's checks in order. A warning does not block a promotion by itself.",
        head=("check", "number", "threshold", "answer", ""),
        rows=tuple(
            (
                check.name.replace("_", " "),
                check_value(check, check.number),
                check_value(check, check.threshold),
                _answer(check),
                check.detail,
            )
            for check in chapter.judgement.checks
        ),
    )


def _answer(check: Check) -> str:
    """The check's result; a check without a number is not called passed."""
    if check.passed and check.number is None and check.severity is Severity.WARNING:
        return "not checked"
    return "passed" if check.passed else f"not passed ({check.severity.value})"


def over_time(chapter: Chapter) -> Table:
    """Every block of both rates, with the estimate so far."""
    rows: list[tuple[str, ...]] = []
    for found in _estimates(chapter):
        start = found.series[0].start_seconds
        for point in found.series:
            running = (point.running_theta, point.running_lo, point.running_hi)
            rows.append(
                (
                    found.kind.value,
                    f"{point.start_seconds - start:.0f} s",
                    "no data" if point.theta is None else percent(point.theta),
                    *("too early" if value is None else percent(value) for value in running),
                )
            )
    return Table(
        caption="One row per block; the interval is valid at every analysis.",
        head=("rate", "began", "gain of the block", "gain so far", "from", "to"),
        rows=tuple(rows),
    )


def _estimates(chapter: Chapter) -> Iterable[Estimate]:
    return (e for e in (chapter.step, chapter.kernel) if isinstance(e, Estimate))


def by_cell(chapter: Chapter) -> Table:
    """Both rates: overall, by batch size, and by layer where several are timed."""
    rows: list[tuple[str, ...]] = []
    for found in _estimates(chapter):
        rows.append((f"{found.kind.value}, all", share(found.covered_weight), *rate_row(found)))
        layered = found.cells if len(found.cells) > len(found.buckets) else ()
        rows += [_cell(entry) for entry in (*found.buckets, *layered)]
        rows += [
            (str(lost.cell), share(lost.weight), "not covered", "", "", str(lost.blocks))
            for lost in found.uncovered
        ]
    rows += [
        (f"{found.kind.value}, all", "", found.reason, "", "", str(found.blocks))
        for found in (chapter.step, chapter.kernel)
        if isinstance(found, NoEstimate)
    ]
    return Table(
        caption="Weight is the share of the stable arm's busy time. "
        f"The saved bytes explain at most {bound(chapter)} for the kernel.",
        head=("cell", "weight", "gain", "from", "to", "blocks"),
        rows=tuple(rows),
    )


def _cell(entry: CellEstimate) -> tuple[str, ...]:
    return (str(entry.cell), share(entry.weight), *rate_row(entry))


def answers(quality: QualityFinding | NoQuality) -> Table | None:
    """The answers' comparison: its cells, or the right answers of both arms; None without any."""
    if isinstance(quality, NoQuality):
        return None
    task = quality.mode is QualityMode.NON_INFERIOR
    return _right_answers(quality) if task else _by_path(quality)


def _by_path(quality: QualityFinding) -> Table | None:
    cells = quality.body.get("cells")
    if not isinstance(cells, list):
        return None
    keys = ("excess_nats", "lower", "upper", "floor_nats")
    return Table(
        caption="Nats per token by which the canary lies farther from the reference than stable; "
        f"each upper bound must lie below {quality.allowed:g}. The floor is stable's own distance.",
        head=("path", "concurrency", "prompts", "excess", "from", "to", "floor"),
        rows=tuple(
            (
                str(cell["path"]),
                str(cell["concurrency"]),
                str(cell["prompts"]),
                *(nats(cell[key]) for key in keys),
            )
            for cell in cells
        ),
    )


def _right_answers(quality: QualityFinding) -> Table | None:
    found = quality.body.get("canary")
    if not isinstance(found, Mapping):
        return None
    items = int(found["items"])
    return Table(
        caption=f"Right answers to {items} questions of the task {quality.body.get('task')}: "
        f"{found['lost']} are right in the baseline alone, {found['won']} in the canary alone "
        f"(p = {found['p_not_worse']:.2g} if the canary were no worse; McNemar's exact test).",
        head=("answers", "right", "of", "accuracy"),
        rows=tuple(
            (name, str(round(found[key] * items)), str(items), share(found[key]))
            for name, key in (("baseline", "baseline"), ("canary", "arm"))
        ),
    )


def calibration(points: tuple[CalibrationSummary, ...]) -> Table:
    """The kernel alone: its time beside the bytes that it fetches."""
    return Table(
        caption="The kernel alone: bytes and time of a call without pads over those with pads.",
        head=("case", "bytes", "time"),
        rows=tuple((p.label, f"{p.bytes_ratio:.3f}", f"{p.seconds_ratio:.3f}") for p in points),
    )


def pairs(caption: str, facts: Facts) -> Table:
    """A table of names and values."""
    return Table(caption=caption, head=("", ""), rows=facts)
