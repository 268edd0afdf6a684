"""The report as one self-contained HTML file that loads nothing."""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moe_serve.analysis.series import CellKind
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.report import quality_chart, speed_charts, tables, wording
from moe_serve.report.data import Chapter, ReportData
from moe_serve.report.tables import Table

_TEMPLATES = Environment(
    loader=PackageLoader("moe_serve.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFigure:
    """One figure of a chapter's card; `tone` is a class of the style sheet: good, bad or empty."""

    label: str
    number: str
    beside: str
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A plot with its caption; `numbers` are folded below it, None if there are none."""

    svg: Markup
    caption: str
    numbers: Table | None


def page(data: ReportData) -> str:
    """The report's HTML; equal data give equal text."""
    return _TEMPLATES.get_template("page.html").render(
        data=data,
        conclusion=wording.conclusion(data.chapters),
        chapters=[
            {
                "name": f"chapter-{number}",
                "content": chapter,
                "headline": wording.headline(chapter.judgement.verdict),
                "figures": card_figures(chapter),
                "speed": _speed(chapter, f"chapter-{number}"),
                "answers": wording.answers(chapter.quality),
                "quality": _quality(chapter, f"chapter-{number}"),
            }
            for number, chapter in enumerate(data.chapters, start=1)
        ],
        tables=tables,
        sentence=wording.sentence,
    )


def card_figures(chapter: Chapter) -> tuple[CardFigure, ...]:
    """A chapter's card: both rates, the answers and the canary's lost neurons."""
    step_note, kernel_note = (
        " (decides)" if chapter.policy.primary is kind else ""
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
    step, step_interval = wording.rate(chapter.step)
    kernel, kernel_interval = wording.rate(chapter.kernel)
    answers, _ = wording.answers(chapter.quality)
    lost, live = chapter.canary.neurons_lost, chapter.canary.neurons_live
    if lost is None:
        loss, tone = "no metric tells", ""
    elif lost == 0:
        loss, tone = "no live neuron is skipped", "good"
    else:
        loss, tone = f"{wording.share(lost / (live or 1))} of each expert", "bad"
    return (
        CardFigure(label=f"Engine step{step_note}", number=step, beside=step_interval),
        CardFigure(
            label=f"MoE kernel{kernel_note}",
            number=kernel,
            beside=f"{kernel_interval}; byte bound {wording.bound(chapter)}",
        ),
        CardFigure(
            label="Answers",
            number=answers,
            beside=wording.distance(chapter.quality),
            tone=_tone(chapter.quality),
        ),
        CardFigure(
            label="Neurons lost by the canary",
            number=wording.neurons(chapter.canary),
            beside=loss,
            tone=tone,
        ),
    )


def _tone(quality: QualityFinding | NoQuality) -> str:
    if isinstance(quality, NoQuality):
        return ""
    return {QualityOutcome.PASSED: "good", QualityOutcome.FAILED: "bad"}.get(quality.outcome, "")


def _speed(chapter: Chapter, name: str) -> tuple[Drawing, ...]:
    return (
        Drawing(
            svg=speed_charts.over_time(chapter, f"{name}-time"),
            caption=f"Each dot is {chapter.dots}. Line and band: the estimate so far with its "
            "interval, which is valid at every analysis up to the deadline.",
            numbers=tables.over_time(chapter),
        ),
        Drawing(
            svg=speed_charts.by_batch_size(chapter, f"{name}-batch"),
            caption="Rates are compared at the exact batch size only. Above the byte bound, the "
            "bytes saved do not explain the kernel's gain.",
            numbers=tables.by_cell(chapter),
        ),
    )


def _quality(chapter: Chapter, name: str) -> Drawing | Table | None:
    numbers = tables.answers(chapter.quality)
    drawn = quality_chart.by_cell(chapter.quality, f"{name}-answers")
    if drawn is None:
        return numbers
    return Drawing(
        svg=drawn,
        caption="Both arms scored the same tokens (prefill) and continued the same prompts "
        "(decode). The noise floor is stable's own distance from the reference.",
        numbers=numbers,
    )
