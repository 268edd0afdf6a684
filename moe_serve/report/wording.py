"""Numbers and verdicts as a reader sees them, the same on the page and in Markdown."""

import math
import re
from dataclasses import dataclass
from typing import assert_never

from moe_serve.analysis.estimate import CellEstimate, Estimate, NoEstimate
from moe_serve.analysis.verdict import Check, Verdict
from moe_serve.quality.finding import QualityFinding, QualityMode
from moe_serve.quality.result import NoQuality, QualityOutcome, QualityResult
from moe_serve.report.data import ArmSheet, Chapter

NONE = "no data"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A verdict's word, the sign beside it (colour alone tells nothing), and what to do."""

    word: str
    sign: str
    action: str


def headline(verdict: Verdict) -> Headline:
    """How a verdict is announced."""
    match verdict:
        case Verdict.PROMOTE:
            return Headline(word="PROMOTE", sign="✓", action="faster, and the same answers")
        case Verdict.ROLLBACK:
            return Headline(word="ROLL BACK", sign="✕", action="keep the stable image")
        case Verdict.KEEP_GOING:
            return Headline(word="KEEP GOING", sign="…", action="not decided yet")
        case Verdict.INVALID:
            return Headline(word="INVALID", sign="!", action="the comparison cannot be trusted")
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
    """A difference in nats a token, three digits; infinity means that there is no bound."""
    if value is None:
        return NONE
    return "none" if math.isinf(value) else f"{value:.3g}"


def sentence(text: str) -> str:
    """A reason as a sentence: a capital, a full stop, and true minus signs before numbers."""
    return re.sub(r"(?<!\S)(\(?)-(?=\d)", rf"\1{MINUS}", f"{text[:1].upper()}{text[1:]}.")


def rate(found: Estimate | NoEstimate) -> tuple[str, str]:
    """An estimate as (number, what stands beside it)."""
    if isinstance(found, NoEstimate):
        return NONE, found.reason
    interval = f"{found.confidence:.0%} interval {span(found.lo, found.hi)}, {found.blocks} blocks"
    return percent(found.theta), interval


def rate_row(found: Estimate | CellEstimate) -> tuple[str, ...]:
    """Gain, its interval and the blocks, as cells of a table."""
    return percent(found.theta), percent(found.lo), percent(found.hi), str(found.blocks)


def distance(quality: QualityResult | QualityFinding | NoQuality) -> str:
    """How far the answers lie apart, in one short line."""
    if isinstance(quality, NoQuality):
        return quality.reason
    if isinstance(quality, QualityFinding):
        task = quality.mode is QualityMode.NON_INFERIOR
        allowed = share(quality.allowed) if task else f"{quality.allowed:g} nats a token"
        if quality.number is None:
            return f"{allowed} allowed"
        most = share(quality.number) if task else nats(quality.number)
        return f"at most {most} lost, {allowed} allowed"
    parts = [part.mean_abs_nats for part in (quality.prefill, quality.decode) if part is not None]
    mean_log_ratio = f"{nats(max(parts))} nats a token apart, " if parts else ""
    return f"{mean_log_ratio}{quality.epsilon_nats:g} allowed"


def answers(quality: QualityResult | QualityFinding | NoQuality) -> tuple[str, str]:
    """The answers' comparison as (word, reason)."""
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
    """What the saved bytes can explain at most."""
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
        return f"{found.word.capitalize()}: {found.action}."
    number = "None" if promoted == 0 else str(promoted)
    return f"{number} of {len(chapters)} canaries may be promoted."
