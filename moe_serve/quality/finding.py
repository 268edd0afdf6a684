"""What the judge takes of a comparison of answers, in whatever mode it was made."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from moe_serve.errors import UsageError
from moe_serve.metrics.labels import UNKNOWN, WORKER_CONFIG_DIGEST
from moe_serve.quality.result import NoQuality, QualityOutcome

_ARMS = ("stable", "canary")
_UNBOUND = "not known to be of these pods"


class QualityMode(StrEnum):
    """`identical`: the canary lies no farther from the reference than stable does, in nats a token.
    `non-inferior`: a task's accuracy is lost by no more than a margin fixed beforehand.
    """

    IDENTICAL = "identical"
    NON_INFERIOR = "non-inferior"


# The chance of a pass at the bound, where the policy says none.
LEVELS = {QualityMode.IDENTICAL: 0.01, QualityMode.NON_INFERIOR: 0.05}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityPolicy:
    """What the policy registered: the mode, what may be lost (nats a token, or a share of a task's
    items), how many items the task has (None: as many as its comparison planned) and the largest
    chance of a pass at the bound (None: any, as in audits from before policies said it).
    """

    mode: QualityMode
    allowed: float
    items: int | None = None
    alpha: float | None = None

    def __str__(self) -> str:
        """`non-inferior with 0.02 allowed over 1319 items at level 0.05`."""
        items = "" if self.items is None else f" over {self.items} items"
        level = "" if self.alpha is None else f" at level {self.alpha:g}"
        return f"{self.mode.value} with {self.allowed:g} allowed{items}{level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityFinding:
    """An outcome with its one number and what was allowed; `body` is the whole comparison's JSON.

    `number` is None where the outcome needs none: values that are not finite.
    """

    mode: QualityMode
    outcome: QualityOutcome
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
            mode=QualityMode(body["mode"]),
            outcome=QualityOutcome(body["outcome"]),
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
    if found.outcome is QualityOutcome.PASSED and not shown:
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


def accept_if_bound(found: QualityFinding | NoQuality) -> QualityFinding | NoQuality:
    """The finding as far as it says of which pods it is.

    A pass of servers whose configuration was not asked for may be of any, so it is none. Answers
    that differ still count: they can only do harm.
    """
    if isinstance(found, NoQuality) or not (lacking := _unknown(found)):
        return found
    told = f"{_UNBOUND}: no {WORKER_CONFIG_DIGEST} of {' and '.join(lacking)}"
    if found.outcome is QualityOutcome.PASSED:
        return NoQuality(
            reason=f"the answers are {told}; name each arm's exporter to `quality probe` "
            f"({found.outcome.value}: {found.reason})"
        )
    reason = f"{found.reason} ({told})"
    return replace(found, reason=reason, body={**found.body, "reason": reason})


def accept_if_same_pods(
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
            now = known.get(name, UNKNOWN if name == WORKER_CONFIG_DIGEST else told[name])
            if now != told[name]:
                return NoQuality(
                    reason=f"the answers compared are of other pods: {arm} had {name} "
                    f"{told[name]} then, {now} is judged"
                )
    return found


def _unknown(found: QualityFinding) -> list[str]:
    return [arm for arm in _ARMS if not _facts(found, arm).get(WORKER_CONFIG_DIGEST)]


def _facts(found: QualityFinding, arm: str) -> Mapping[str, str]:
    arms = found.body.get("arms")
    told = arms.get(arm) if isinstance(arms, Mapping) else None
    facts = told.get("facts") if isinstance(told, Mapping) else None
    return facts if isinstance(facts, Mapping) else {}


def accept_if_policy(
    quality_policy: QualityPolicy, found: QualityFinding | NoQuality
) -> QualityFinding | NoQuality:
    """The finding as far as it answers the registered question.

    What was shown to lie within a wider bound than registered was not shown, and what was refuted
    for a narrower one alone was not refuted. A pass must have had the registered items, which are
    fixed before the first answer, and no larger level; answers that differ count however they were
    found, and in either mode if no bound allows them.
    """
    if isinstance(found, NoQuality):
        return found
    asked = QualityPolicy(
        mode=found.mode,
        allowed=found.allowed,
        items=None if quality_policy.items is None else _planned(found),
        alpha=None if quality_policy.alpha is None else _level(found),
    )
    if found.mode is quality_policy.mode and _answers(quality_policy, asked, found.outcome):
        return found
    if (
        quality_policy.alpha is not None
        and found.outcome is QualityOutcome.FAILED
        and _refutes(quality_policy, found)
    ):
        return found
    return NoQuality(
        reason=f"the answers were compared in mode {asked}, the policy has {quality_policy} "
        f"({found.outcome.value}: {found.reason})"
    )


def _planned(found: QualityFinding) -> int | None:
    told = found.body.get("planned_items")
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _level(found: QualityFinding) -> float | None:
    try:
        return _finite("alpha", found.body.get("alpha"))
    except ValueError:
        return None


def _answers(quality_policy: QualityPolicy, asked: QualityPolicy, outcome: QualityOutcome) -> bool:
    if quality_policy.alpha is None and quality_policy.mode is QualityMode.NON_INFERIOR:
        # As audits were judged before policies had a level.
        same = math.isclose(asked.allowed, quality_policy.allowed, rel_tol=1e-9)
        return same and asked.items == quality_policy.items
    match outcome:
        case QualityOutcome.PASSED:
            level = quality_policy.alpha is None or (
                asked.alpha is not None and asked.alpha <= quality_policy.alpha
            )
            return (
                asked.allowed <= quality_policy.allowed
                and asked.items == quality_policy.items
                and level
            )
        case QualityOutcome.FAILED:
            return asked.allowed >= quality_policy.allowed
        case QualityOutcome.UNDECIDED:
            return True


def _refutes(quality_policy: QualityPolicy, found: QualityFinding) -> bool:
    """Whether a failure for another bound or mode is one for the registered question too."""
    if found.body.get("at_any_bound") is True:
        return True
    shown = max(_shown_losses(found), default=0.0)
    return found.mode is quality_policy.mode and shown > quality_policy.allowed


def _shown_losses(found: QualityFinding) -> Iterator[float]:
    """Least losses that the answers show: nats in a cell, or a share of the items."""
    cells, canary = found.body.get("cells"), found.body.get("canary")
    for cell in cells if isinstance(cells, list) else []:
        if isinstance(cell, Mapping) and isinstance(lower := cell.get("lower"), (int, float)):
            yield lower
    if isinstance(canary, Mapping) and isinstance(upper := canary.get("upper"), (int, float)):
        yield -upper
