"""What the judge takes of a comparison of answers, in whatever mode it was made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from moe_serve.canary.analysis.history import DIGEST, UNKNOWN
from moe_serve.canary.quality.result import NoQuality, Outcome
from moe_serve.errors import UsageError

_ARMS = ("stable", "canary")
_UNBOUND = "not known to be of these pods"


class Mode(StrEnum):
    """`identical`: the canary lies no farther from the reference than stable does, in nats a token.
    `non-inferior`: a task's accuracy is lost by no more than a margin fixed beforehand.
    """

    IDENTICAL = "identical"
    NON_INFERIOR = "non-inferior"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFinding:
    """An outcome with its one number and what was allowed; `body` is the whole comparison's JSON.

    `number` is None where the outcome needs none: values that are not finite.
    """

    mode: Mode
    outcome: Outcome
    reason: str
    number: float | None
    allowed: float
    body: Mapping[str, object]

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality`."""
        return dict(self.body)


def finding(body: Mapping[str, Any]) -> QualityFinding | NoQuality:
    """The finding in a comparison's JSON.

    Raises:
        UsageError: it is no such JSON.
    """
    try:
        if body["outcome"] is None:
            return NoQuality(reason=str(body["reason"]))
        number = body["number"]
        found = QualityFinding(
            mode=Mode(body["mode"]),
            outcome=Outcome(body["outcome"]),
            reason=str(body["reason"]),
            number=None if number is None else _finite("number", number),
            allowed=_finite("allowed", body["allowed"]),
            body=dict(body),
        )
    except KeyError as error:
        raise UsageError(f"no result of a comparison of answers: no {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"no result of a comparison of answers: {error}") from error
    if found.allowed <= 0:
        raise UsageError(f"no result of a comparison of answers: allowed is {found.allowed:g}")
    shown = found.number is not None and found.number <= found.allowed
    if found.outcome is Outcome.PASSED and not shown:
        raise UsageError(
            f"no result of a comparison of answers: passed, with {number} where "
            f"{found.allowed:g} is allowed"
        )
    return found


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} is {value!r}, no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is not finite")
    return number


def bound(found: QualityFinding | NoQuality) -> QualityFinding | NoQuality:
    """The finding as far as it says of which pods it is.

    A pass of servers whose configuration was not asked for may be of any, so it is none. Answers
    that differ still count: they can only do harm. Idempotent, as an audit's replay reads them.
    """
    if isinstance(found, NoQuality) or not (lacking := _unknown(found)):
        return found
    told = f"{_UNBOUND}: no {DIGEST} of {' and '.join(lacking)}"
    if found.outcome is Outcome.PASSED:
        return NoQuality(
            reason=f"the answers are {told}; name each arm's exporter to `quality probe` "
            f"({found.outcome.value}: {found.reason})"
        )
    if found.reason.endswith(note := f" ({told})"):
        return found
    reason = found.reason + note
    return replace(found, reason=reason, body={**found.body, "reason": reason})


def about(
    found: QualityFinding | NoQuality, judged: Mapping[str, Mapping[str, str]]
) -> QualityFinding | NoQuality:
    """The finding as far as it is of these arms: what it tells of each must be so of all its pods.

    `judged` are the arms' facts, by arm and name.
    """
    found = bound(found)
    if isinstance(found, NoQuality):
        return found
    for arm in _ARMS:
        known, told = judged.get(arm, {}), _facts(found, arm)
        for name in sorted(told):
            # A fact that the judged pods do not tell says nothing, except for the digest.
            now = known.get(name, UNKNOWN if name == DIGEST else told[name])
            if now != told[name]:
                return NoQuality(
                    reason=f"the answers compared are of other pods: {arm} had {name} "
                    f"{told[name]} then, {now} is judged"
                )
    return found


def _unknown(found: QualityFinding) -> list[str]:
    return [arm for arm in _ARMS if not _facts(found, arm).get(DIGEST)]


def _facts(found: QualityFinding, arm: str) -> Mapping[str, str]:
    arms = found.body.get("arms")
    told = arms.get(arm) if isinstance(arms, Mapping) else None
    facts = told.get("facts") if isinstance(told, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def under(
    mode: Mode, allowed: float, found: QualityFinding | NoQuality
) -> QualityFinding | NoQuality:
    """The finding as far as it answers the registered question.

    What was shown to lie within a wider bound than registered was not shown, and what was refuted
    for a narrower one was not refuted.
    """
    if isinstance(found, NoQuality):
        return found
    wider = found.outcome is Outcome.PASSED and found.allowed > allowed
    narrower = found.outcome is Outcome.FAILED and found.allowed < allowed
    if found.mode is mode and not wider and not narrower:
        return found
    return NoQuality(
        reason=f"the answers were compared in mode {found.mode.value} with {found.allowed:g} "
        f"allowed, the policy has {mode.value} with {allowed:g} ({found.outcome.value}: "
        f"{found.reason})"
    )
