"""One comparison on the page: its card on the first screen, and its section below."""

from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.series import CellKind
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality, QualityOutcome, QualityResult
from moe_serve.report import quality_chart, speed_charts, tables
from moe_serve.report.data import Chapter
from moe_serve.report.markup import Html, join, more, table, tag
from moe_serve.report.tables import Table
from moe_serve.report.wording import (
    answers,
    bound,
    distance,
    headline,
    neurons,
    rate,
    sentence,
    share,
)


def anchor(number: int) -> str:
    """The section's id on the page; figures in it build theirs on this one."""
    return f"chapter-{number}"


def card(chapter: Chapter, number: int) -> Html:
    """Verdict, reason, speed, answers and loss: ten seconds' worth."""
    verdict = chapter.judgement.verdict
    found = headline(verdict)
    title = tag("h2", tag("a", chapter.title, href=f"#{anchor(number)}"))
    badge = tag("span", tag("span", found.sign, aria_hidden="true"), found.word, class_="badge")
    return tag(
        "article",
        tag("div", badge, title, class_="row"),
        tag("p", sentence(chapter.judgement.reason), class_="reason"),
        _facts(chapter),
        class_=f"card {verdict.value.lower()}",
    )


def _facts(chapter: Chapter) -> Html:
    step_note, kernel_note = (
        " (decides)" if chapter.policy.primary is kind else ""
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
    word, _ = answers(chapter.quality)
    lost = chapter.canary.neurons_lost
    fraction = (lost or 0) / (chapter.canary.neurons_live or 1)
    return tag(
        "dl",
        _rate(f"Engine step{step_note}", chapter.step, ""),
        _rate(f"MoE kernel{kernel_note}", chapter.kernel, f"; byte bound {bound(chapter)}"),
        _fact("Answers", word, distance(chapter.quality), _answer_tone(chapter.quality)),
        _fact(
            "Neurons lost by the canary",
            neurons(chapter.canary),
            f"{share(fraction)} of each expert"
            if lost
            else "nothing live is skipped"
            if lost == 0
            else "no metric tells",
            "bad" if lost else "good" if lost == 0 else "",
        ),
        class_="facts",
    )


def _rate(label: str, found: Estimate | NoEstimate, after: str) -> Html:
    number, beside = rate(found)
    return _fact(label, number, beside + after, "")


def _fact(label: str, number: str, beside: str, tone: str) -> Html:
    return tag(
        "div",
        tag("dt", label),
        tag("dd", number, class_=f"number {tone}".strip()),
        tag("dd", beside),
    )


def _answer_tone(quality: QualityResult | QualityFinding | NoQuality) -> str:
    if isinstance(quality, NoQuality):
        return ""
    return {QualityOutcome.PASSED: "good", QualityOutcome.FAILED: "bad"}.get(quality.outcome, "")


def section(chapter: Chapter, number: int) -> Html:
    """The whole chapter: arms, plots with their numbers beneath, checks, what happened."""
    name = anchor(number)
    parts = [
        tag("h2", chapter.title),
        tag("p", chapter.note, class_="muted"),
        *_speed(chapter, name),
        *_quality(chapter, name),
        tag("h3", "How the verdict came about"),
        _table(tables.checks(chapter)),
        _digest(chapter),
        tag("h3", "What was compared"),
        _table(tables.arms(chapter)),
        *_timeline(chapter),
    ]
    return tag("section", *parts, class_="chapter", id=name)


def _table(found: Table) -> Html:
    return table(found.head, found.rows, found.caption)


def _figure(drawn: Html, caption: str, numbers: Table | None) -> Html:
    beneath = more("The numbers", _table(numbers)) if numbers is not None else Html("")
    return join(
        (
            tag("figure", tag("div", drawn, class_="scroll"), tag("figcaption", caption)),
            beneath,
        )
    )


def _speed(chapter: Chapter, name: str) -> list[Html]:
    return [
        tag("h3", "Is it faster?"),
        _figure(
            speed_charts.over_time(chapter, f"{name}-time"),
            f"Each dot is {chapter.dots}. Line and band: the estimate so far. Its ends hold at "
            "every look.",
            tables.over_time(chapter),
        ),
        _figure(
            speed_charts.by_batch_size(chapter, f"{name}-batch"),
            "Rates are compared at the exact batch size only. Above the byte bound, saved bytes "
            "no longer explain a gain of the kernel.",
            tables.by_cell(chapter),
        ),
    ]


def _quality(chapter: Chapter, name: str) -> list[Html]:
    word, reason = answers(chapter.quality)
    parts = [tag("h3", "Are the answers the same?"), tag("p", sentence(f"{word}: {reason}"))]
    drawn = quality_chart.panel(chapter.quality, f"{name}-answers")
    if drawn is not None:
        caption = (
            "Both arms scored the same tokens (prefill) and wrote their own greedy texts (decode, "
            "compared up to the first different token). The noise floor is the stable arm asked "
            "twice."
        )
        parts.append(_figure(drawn, caption, tables.answers(chapter.quality)))
    elif (compared := tables.answers(chapter.quality)) is not None:
        parts.append(_table(compared))
    if chapter.exam is not None:
        parts.append(_table(tables.exam(chapter.exam)))
    if isinstance(chapter.quality, QualityResult) and chapter.quality.missing:
        items = (tag("li", name) for name in chapter.quality.missing)
        parts.append(more(f"{len(chapter.quality.missing)} missing answers", tag("ul", *items)))
    return parts


def _digest(chapter: Chapter) -> Html:
    judged = chapter.judgement
    text = f"Evidence grade {judged.graded}; configuration {judged.config_digest or 'not given'}."
    return tag("p", text, class_="muted small")


def _timeline(chapter: Chapter) -> list[Html]:
    if not chapter.timeline:
        return []
    items = (tag("li", f"{event.at_seconds:.0f} s: {event.text}") for event in chapter.timeline)
    return [more("What happened when", tag("ul", *items))]
