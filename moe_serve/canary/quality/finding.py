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
class Question:
    """What the policy registered: the mode, what may be lost (nats a token, or a share of a task's
    items) and how many items the task has (None: as many as its comparison planned).
    """

    mode: Mode
    allowed: float
    items: int | None = None

    def __str__(self) -> str:
        """`non-inferior with 0.02 allowed over 1319 items`."""
        items = "" if self.items is None else f" over {self.items} items"
        return f"{self.mode.value} with {self.allowed:g} allowed{items}"


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
    that differ still count: they can only do harm.
    """
    if isinstance(found, NoQuality) or not (lacking := _unknown(found)):
        return found
    told = f"{_UNBOUND}: no {DIGEST} of {' and '.join(lacking)}"
    if found.outcome is Outcome.PASSED:
        return NoQuality(
            reason=f"the answers are {told}; name each arm's exporter to `quality probe` "
            f"({found.outcome.value}: {found.reason})"
        )
    reason = f"{found.reason} ({told})"
    return replace(found, reason=reason, body={**found.body, "reason": reason})


def about(
    found: QualityFinding | NoQuality, judged: Mapping[str, Mapping[str, str]]
) -> QualityFinding | NoQuality:
    """The finding as far as it is of these arms: what it tells of each must be so of all its pods.

    `judged` are the arms' facts, by arm and name.
    """
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


def under(question: Question, found: QualityFinding | NoQuality) -> QualityFinding | NoQuality:
    """The finding as far as it answers the registered question.

    In nats, what was shown to lie within a wider bound than registered was not shown, and what was
    refuted for a narrower one was not refuted. A task's margin and number of items are fixed before
    the first answer, so any other is another question.
    """
    if isinstance(found, NoQuality):
        return found
    asked = Question(mode=found.mode, allowed=found.allowed, items=_items(question, found))
    if found.mode is question.mode and _answers(question, asked, found.outcome):
        return found
    return NoQuality(
        reason=f"the answers were compared in mode {asked}, the policy has {question} "
        f"({found.outcome.value}: {found.reason})"
    )


def _items(question: Question, found: QualityFinding) -> int | None:
    """How many items were planned, where the question has a number."""
    planned = found.body.get("planned_items")
    return planned if question.items is not None and isinstance(planned, int) else None


def _answers(question: Question, asked: Question, outcome: Outcome) -> bool:
    if question.mode is Mode.NON_INFERIOR:
        same = math.isclose(asked.allowed, question.allowed, rel_tol=1e-9)
        return same and asked.items == question.items
    wider = outcome is Outcome.PASSED and asked.allowed > question.allowed
    narrower = outcome is Outcome.FAILED and asked.allowed < question.allowed
    return not (wider or narrower)
