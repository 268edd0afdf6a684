"""The numbers behind the page, as rows of text: for the page's tables and for Markdown alike."""

from collections.abc import Iterable
from dataclasses import dataclass

from moe_serve.analysis.estimate import CellEstimate, Estimate, NoEstimate
from moe_serve.analysis.verdict import Check, Severity
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import Difference, NoQuality, QualityResult
from moe_serve.report.data import ArmSheet, CalibrationSummary, Chapter, Exam, Facts
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
    """A table as text; nothing in it is escaped yet."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def arms(chapter: Chapter) -> Table:
    """What each arm was: policy, pads, loss, bytes, versions, environment, flags."""
    sheets = (chapter.stable, chapter.canary)
    columns = [_sheet(sheet) for sheet in sheets]
    labels = dict.fromkeys(label for column in columns for label in column)
    return Table(
        caption="Pads are hidden/neurons, in elements of one rank. Bytes are what the kernel "
        "fetches over what the unpadded weights hold.",
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
        **dict(arm.versions),
        **dict(arm.environment),
        **({"flags": " ".join(arm.flags)} if arm.flags else {}),
    }


def checks(chapter: Chapter) -> Table:
    """Every check of the judge: number, threshold, answer."""
    return Table(
        caption="What the judge asked, in order. A warning does not block by itself.",
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
    """What was not checked is no pass, and is not called one."""
    if check.passed and check.number is None and check.severity is Severity.WARNING:
        return "not checked"
    return "passed" if check.passed else f"not passed ({check.severity.value})"


def over_time(chapter: Chapter) -> Table:
    """Every paired block of both rates."""
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
        caption="One row a paired block; the ends hold at every look.",
        head=("rate", "began", "gain of the block", "gain so far", "from", "to"),
        rows=tuple(rows),
    )


def _estimates(chapter: Chapter) -> Iterable[Estimate]:
    return (e for e in (chapter.step, chapter.kernel) if isinstance(e, Estimate))


def by_cell(chapter: Chapter) -> Table:
    """Both rates as a whole, by batch size, and by layer where there is more than one."""
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


def answers(quality: QualityResult | QualityFinding | NoQuality) -> Table | None:
    """Differences between the arms' answers, beside the noise floor, in nats a token."""
    if isinstance(quality, NoQuality):
        return None
    if isinstance(quality, QualityFinding):
        return _by_path(quality)
    parts = (
        ("prefill, canary", quality.prefill),
        ("prefill, noise floor", quality.noise_prefill),
        ("decode, canary", quality.decode),
        ("decode, noise floor", quality.noise_decode),
    )
    return Table(
        caption=f"Nats a token; bounds are one-sided at {share(quality.confidence)}; "
        f"{quality.epsilon_nats:g} is allowed.",
        head=("", "prompts", "tokens", "mean |d|", "from", "to", "mean d", "largest", "top-1"),
        rows=tuple(_difference(label, part) for label, part in parts if part is not None),
    )


def _by_path(quality: QualityFinding) -> Table | None:
    """The quality gate's cells, where its mode has cells."""
    cells = quality.body.get("cells")
    if not isinstance(cells, list):
        return None
    keys = ("excess_nats", "lower", "upper", "floor_nats")
    return Table(
        caption=f"Nats a token that the canary lies farther from the reference than stable; each "
        f"upper bound must lie below {quality.allowed:g}. The floor is stable's own distance.",
        head=("path", "concurrency", "texts", "excess", "from", "to", "floor"),
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


def exam(found: Exam) -> Table:
    """How many answers are right, arm by arm."""
    return Table(
        caption=f"Right answers to {found.items} questions of the task {found.task}, each with one "
        f"right answer: {found.lost} are right on the stable arm alone, {found.won} on the canary "
        f"alone (p = {found.p_not_worse:.2g} if it were no worse; McNemar's exact test).",
        head=("arm", "right", "of", "accuracy"),
        rows=tuple(
            (arm, str(right), str(found.items), share(right / found.items))
            for arm, right in (("stable", found.stable), ("canary", found.canary))
        ),
    )


def _difference(label: str, part: Difference) -> tuple[str, ...]:
    top1 = "not asked" if part.top1_agreement is None else share(part.top1_agreement)
    values = (part.mean_abs_nats, part.lower, part.upper, part.mean_nats, part.max_abs_nats)
    return (label, str(part.prompts), str(part.tokens), *map(nats, values), top1)


def calibration(points: tuple[CalibrationSummary, ...]) -> Table:
    """The kernel alone: does its time follow its bytes."""
    return Table(
        caption="The kernel alone: how its time follows the bytes that it fetches (1 = no change).",
        head=("case", "bytes", "time"),
        rows=tuple((p.label, f"{p.bytes_ratio:.3f}", f"{p.seconds_ratio:.3f}") for p in points),
    )


def pairs(caption: str, facts: Facts) -> Table:
    """Names and values."""
    return Table(caption=caption, head=("", ""), rows=facts)
