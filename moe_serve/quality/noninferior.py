"""Mode `non-inferior`: a task's accuracy is within a margin that was declared in advance.

Margin and number of items are fixed before the start, and the canary is decided upon once, with
all items; an early look may only stop for harm. The baseline is the gold's stored answers, so that
small losses cannot add up from one promotion to the next. It proves nothing if the task is
saturated, or if the same harness does not fail an arm that is known to be bad.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.quality.paired import interval, mcnemar_exact, power
from moe_serve.quality.result import NoQuality, QualityOutcome

Answers = Mapping[str, bool]  # item -> was the answer right


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Fixed before the first item.

    `margin` is a fraction of the items; `chance` is the accuracy of guessing. Between `chance`
    plus ten margins and `ceiling` the task can tell good from bad.
    """

    task: str
    items: int
    margin: float = 0.02
    alpha: float = 0.05
    early_items: int = 250
    early_alpha: float = 0.001
    ceiling: float = 0.99
    chance: float = 0.0
    discordant: float = 0.06

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out."""
        good = self.items >= 1 and 0 < self.margin < 0.5 and 0 < self.alpha < 0.5
        good = good and 0 < self.early_alpha < 0.5 and 0 <= self.chance < self.ceiling <= 1
        if not good or self.early_items < 1 or not 0 <= self.discordant <= 1:
            raise UsageError(
                "quality task: needs 1 item or more, a margin in (0, 0.5), levels in (0, 0.5) and "
                "chance below ceiling"
            )

    @property
    def power(self) -> float:
        """Probability that an arm that is no worse passes."""
        return power(
            items=self.items, margin=self.margin, discordant=self.discordant, alpha=self.alpha
        )

    @property
    def floor(self) -> float:
        """Below this accuracy there is too little to lose."""
        return self.chance + 10 * self.margin


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedAccuracy:
    """Both arms on the items that both answered; bounds are one-sided, as fractions."""

    items: int
    baseline: float
    arm: float
    lost: int
    won: int
    lower: float
    upper: float
    p_not_worse: float

    def to_json(self) -> dict[str, object]:
        """All figures by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The decision, and the figures behind it; `known_bad` is None where none was asked."""

    outcome: QualityOutcome
    reason: str
    plan: TaskPlan
    canary: PairedAccuracy
    stable: PairedAccuracy | None
    known_bad: PairedAccuracy | None

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality` in mode `non-inferior`."""
        return {
            "mode": "non-inferior",
            "outcome": self.outcome.value,
            "reason": self.reason,
            "task": self.plan.task,
            "planned_items": self.plan.items,
            "number": -self.canary.lower,
            "allowed": self.plan.margin,
            "alpha": self.plan.alpha,
            "power": self.plan.power,
            "canary": self.canary.to_json(),
            "stable": self.stable.to_json() if self.stable else None,
            "known_bad": self.known_bad.to_json() if self.known_bad else None,
        }


def paired(baseline: Answers, arm: Answers, *, alpha: float) -> PairedAccuracy | None:
    """The arm against the baseline on the items of both; None if there is none."""
    both = sorted(baseline.keys() & arm.keys())
    if not both:
        return None
    lost = sum(baseline[item] and not arm[item] for item in both)
    won = sum(arm[item] and not baseline[item] for item in both)
    lower, upper = interval(lost, won, len(both), alpha=alpha)
    return PairedAccuracy(
        items=len(both),
        baseline=sum(baseline[item] for item in both) / len(both),
        arm=sum(arm[item] for item in both) / len(both),
        lost=lost,
        won=won,
        lower=lower,
        upper=upper,
        p_not_worse=mcnemar_exact(lost, won),
    )


def harmed(plan: TaskPlan, baseline: Answers, canary: Answers) -> bool:
    """The early look: is the canary shown to be beyond the margin already? It cannot pass here."""
    found = paired(baseline, canary, alpha=plan.early_alpha)
    return found is not None and found.items >= plan.early_items and found.upper < -plan.margin


def decide(
    plan: TaskPlan,
    gold: Answers,
    canary: Answers,
    *,
    stable: Answers | None = None,
    known_bad: Answers | None = None,
) -> TaskResult | NoQuality:
    """Judge the canary against the gold's answers to the planned items.

    Passed and failed are said of all planned items; of fewer, failed alone, for harm.
    """
    against = paired(gold, canary, alpha=plan.alpha)
    if against is None:
        return NoQuality(reason=f"{plan.task}: no item was answered by the gold and the canary")
    bad = None if known_bad is None else paired(gold, known_bad, alpha=plan.alpha)
    outcome, reason = _outcome(plan, gold, canary, against, bad)
    return TaskResult(
        outcome=outcome,
        reason=f"{plan.task}: {reason}",
        plan=plan,
        canary=against,
        stable=None if stable is None else paired(gold, stable, alpha=plan.alpha),
        known_bad=bad,
    )


def _outcome(
    plan: TaskPlan,
    gold: Answers,
    canary: Answers,
    found: PairedAccuracy,
    bad: PairedAccuracy | None,
) -> tuple[QualityOutcome, str]:
    told = (
        f"{found.arm:.1%} right, {found.arm - found.baseline:+.1%} against the gold "
        f"({found.lower:+.1%} to {found.upper:+.1%}, {found.items} items), margin {plan.margin:.1%}"
    )
    if harmed(plan, gold, canary):
        return QualityOutcome.FAILED, f"harm: {told}"
    if doubt := _doubt(plan, found, bad):
        return QualityOutcome.UNDECIDED, doubt
    if found.lower > -plan.margin:
        return QualityOutcome.PASSED, f"within the margin: {told}"
    return QualityOutcome.FAILED, f"not shown to be within the margin: {told}"


def _doubt(plan: TaskPlan, found: PairedAccuracy, bad: PairedAccuracy | None) -> str | None:
    if found.items != plan.items:
        return f"{found.items} of {plan.items} planned items were answered; decided with all"
    if not plan.floor <= found.baseline <= plan.ceiling:
        return (
            f"the gold has {found.baseline:.1%} right: a task is of use between {plan.floor:.1%} "
            f"and {plan.ceiling:.1%}, this one is saturated"
        )
    if bad is None:
        return "no arm that is known to be bad was asked: what passes here may pass anywhere"
    if bad.items != plan.items or bad.upper >= -plan.margin:
        return (
            f"the arm that is known to be bad was not failed ({bad.arm - bad.baseline:+.1%}, "
            f"{bad.lower:+.1%} to {bad.upper:+.1%}, {bad.items} items): the harness sees nothing"
        )
    return None
