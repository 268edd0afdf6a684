"""Numbers and verdicts as text, equal on the page and in Markdown."""

import math
import re
from dataclasses import dataclass
from typing import assert_never

from moe_serve.analysis.estimate import CellEstimate, Estimate, NoEstimate
from moe_serve.analysis.verdict import Check, Verdict
from moe_serve.quality.finding import QualityFinding, QualityMode
from moe_serve.quality.result import NoQuality, QualityOutcome
from moe_serve.report.data import ArmSheet, Chapter

NONE = "no data"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A verdict's heading, the sign beside it (for readers without colours), and what to do."""

    text: str
    sign: str
    action: str


def headline(verdict: Verdict) -> Headline:
    """The heading of a verdict."""
    match verdict:
        case Verdict.PROMOTE:
            return Headline(text="PROMOTE", sign="✓", action="faster, and the same answers")
        case Verdict.ROLLBACK:
            return Headline(text="ROLL BACK", sign="✕", action="keep the stable image")
        case Verdict.KEEP_GOING:
            return Headline(text="KEEP GOING", sign="…", action="not decided yet")
        case Verdict.INVALID:
            return Headline(text="INVALID", sign="!", action="the comparison cannot be trusted")
        case _:
            assert_never(verdict)


def percent(log_ratio: float) -> str:
    """A log ratio of rates as a gain: `+8.2%`."""
    return f"{100 * math.expm1(log_ratio):+.1f}%".replace("-", MINUS)


def share(value: float) -> str:
    """A share as `97.5%`."""
    return f"{100 * value:.1f}%"


def span(lo: float, hi: float) -> str:
    """Two log ratios as `+7.1% to +9.3%`."""
    return f"{percent(lo)} to {percent(hi)}"


def nats(value: float | None) -> str:
    """Nats per token with three digits; `none` for infinity, which is no bound."""
    if value is None:
        return NONE
    return "none" if math.isinf(value) else f"{value:.3g}"


def sentence(text: str) -> str:
    """A reason as a sentence, with a capital, a full stop and typographic minus signs."""
    return re.sub(r"(?<!\S)(\(?)-(?=\d)", rf"\1{MINUS}", f"{text[:1].upper()}{text[1:]}.")


def rate(found: Estimate | NoEstimate) -> tuple[str, str]:
    """An estimate as its gain and its interval; without one, `no data` and the reason."""
    if isinstance(found, NoEstimate):
        return NONE, found.reason
    interval = f"{found.confidence:.0%} interval {span(found.lo, found.hi)}, {found.blocks} blocks"
    return percent(found.theta), interval


def rate_row(found: Estimate | CellEstimate) -> tuple[str, ...]:
    """Gain, lower end, upper end and blocks, as cells of a table."""
    return percent(found.theta), percent(found.lo), percent(found.hi), str(found.blocks)


def distance(quality: QualityFinding | NoQuality) -> str:
    """The largest difference of the answers that is not ruled out, and the allowed one."""
    if isinstance(quality, NoQuality):
        return quality.reason
    task = quality.mode is QualityMode.NON_INFERIOR
    allowed = share(quality.allowed) if task else f"{quality.allowed:g} nats per token"
    if quality.number is None:
        return f"{allowed} allowed"
    most = share(quality.number) if task else nats(quality.number)
    return f"at most {most} lost, {allowed} allowed"


def answers(quality: QualityFinding | NoQuality) -> tuple[str, str]:
    """The result of the answers' comparison, and its reason."""
    if isinstance(quality, NoQuality):
        return "not compared", quality.reason
    match quality.outcome:
        case QualityOutcome.PASSED:
            return "the same", quality.reason
        case QualityOutcome.FAILED:
            return "different", quality.reason
        case QualityOutcome.UNDECIDED:
            return "not shown", quality.reason
        case _:
            assert_never(quality.outcome)


def neurons(arm: ArmSheet) -> str:
    """`192 of 2880`."""
    if arm.neurons_lost is None or arm.neurons_live is None:
        return NONE
    return f"{arm.neurons_lost} of {arm.neurons_live}"


def bound(chapter: Chapter) -> str:
    """The byte bound: the largest gain of the kernel that the saved bytes explain."""
    return NONE if chapter.byte_bound is None else percent(chapter.byte_bound)


_LOG_RATIOS = ("_gain", "_no_harm", "within_byte_bound")
_SHARES = ("coverage", "void_blocks")


def check_value(check: Check, value: float | None) -> str:
    """A check's number or threshold in the unit that its name implies."""
    if value is None:
        return NONE
    if check.name.endswith(_LOG_RATIOS):
        return percent(value)
    if check.name in _SHARES:
        return share(value)
    return nats(value)


def conclusion(chapters: tuple[Chapter, ...]) -> str:
    """One sentence over all chapters."""
    promoted = sum(chapter.judgement.verdict is Verdict.PROMOTE for chapter in chapters)
    if not chapters:
        return "Nothing was compared."
    if len(chapters) == 1:
        found = headline(chapters[0].judgement.verdict)
        return f"{found.text.capitalize()}: {found.action}."
    number = "None" if promoted == 0 else str(promoted)
    return f"{number} of {len(chapters)} canaries may be promoted."
