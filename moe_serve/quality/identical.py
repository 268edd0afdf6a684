"""Mode `identical`: is the canary shown to be no farther from the reference than stable is.

Sameness is equivalence within epsilon, not a difference that was not found: any lossless kernel
may sum in another order, and too few prompts can never pass. The canary passes when the upper
bound lies below epsilon in every cell, and fails when a lower bound lies above it in any; until
one of both, more rounds are needed. The bounds hold at all planned rounds at once.

The level: a canary that is worse than epsilon in some cell passes with probability at most alpha
(a pass needs every cell, so each keeps the whole alpha), and one that is within epsilon in all
fails with probability at most alpha: half of it for divergence, half for the top-1 tripwire, each
split over the cells. Only one of both can be true, so the whole error is at most alpha.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.errors import UsageError
from moe_serve.quality import sequence
from moe_serve.quality.cells import CellRound, Clusters, ProbeCell, clusters
from moe_serve.quality.result import NoQuality, QualityOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """Fixed before the first round.

    `epsilon_nats` is a token's excess divergence that is still called the same; `min_prompts` must
    have been answered in each cell before it can pass; at most `max_missing` of its answers may
    lack. `top1_drop` is the tripwire: a fraction of all positions.
    """

    cells: tuple[ProbeCell, ...]
    rounds: int
    epsilon_nats: float = 0.005
    alpha: float = 0.01
    min_prompts: int = 64
    max_missing: float = 0.01
    top1_drop: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a plan that cannot be carried out."""
        good = 0 < self.alpha < 0.5 and self.epsilon_nats > 0 and self.rounds >= 1
        good = good and self.min_prompts >= 2 and 0 <= self.max_missing < 1 and self.top1_drop > 0
        if not good or not self.cells or len(set(self.cells)) != len(self.cells):
            raise UsageError(
                "quality plan: needs different cells, 1 round or more, epsilon and top1_drop above "
                "0, alpha in (0, 0.5), min_prompts of 2 or more and max_missing in [0, 1)"
            )

    @property
    def passing(self) -> sequence.Sequence:
        """The sequence of every cell's upper bound."""
        return sequence.Sequence(alpha=self.alpha, looks=self.rounds)

    @property
    def failing(self) -> sequence.Sequence:
        """The sequence of every cell's lower bounds, of either kind."""
        return sequence.Sequence(alpha=self.alpha / 2 / len(self.cells), looks=self.rounds)

    def budget(self) -> dict[str, object]:
        """The whole alpha and where it goes, for the report."""
        return {
            "alpha": self.alpha,
            "rounds": self.rounds,
            "cells": len(self.cells),
            "alpha_pass_each_cell": self.passing.alpha,
            "quantile_pass": self.passing.quantile,
            "alpha_fail_each_cell_and_kind": self.failing.alpha,
            "quantile_fail": self.failing.quantile,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeCellResult:
    """One cell after the rounds so far; bounds in nats a token, infinite below two prompts.

    `floor` is stable's own divergence from the reference; None where nothing was answered.
    """

    cell: ProbeCell
    prompts: int
    tokens: int
    asked: int
    answered: int
    excess: float | None
    lower: float
    upper: float
    floor: float | None
    top1_drop: float | None
    top1_lower: float
    broken: tuple[str, ...]
    stable_broken: tuple[str, ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """All figures by name; what is infinite has no number in JSON."""
        return {
            "path": self.cell.path.value,
            "concurrency": self.cell.concurrency,
            "prompts": self.prompts,
            "tokens": self.tokens,
            "asked": self.asked,
            "answered": self.answered,
            "excess_nats": self.excess,
            "lower": self.lower if math.isfinite(self.lower) else None,
            "upper": self.upper if math.isfinite(self.upper) else None,
            "floor_nats": self.floor,
            "top1_drop": self.top1_drop,
            "not_finite": list(self.broken),
            "not_finite_stable": list(self.stable_broken),
            "missing": list(self.missing),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IdenticalResult:
    """The outcome after so many rounds, and every cell behind it."""

    outcome: QualityOutcome
    reason: str
    plan: ProbePlan
    rounds: int
    cells: tuple[ProbeCellResult, ...]

    @property
    def number(self) -> float | None:
        """The highest upper bound of a cell; None before every cell has one."""
        worst = max(cell.upper for cell in self.cells)
        return worst if math.isfinite(worst) else None

    @property
    def at_any_bound(self) -> bool:
        """Whether the canary fails for what no epsilon allows."""
        return any(cell.broken or _tripped(self.plan, cell) for cell in self.cells)

    def to_json(self) -> dict[str, object]:
        """The verdict's `quality` in mode `identical`."""
        return {
            "mode": "identical",
            "outcome": self.outcome.value,
            "reason": self.reason,
            "number": self.number,
            "allowed": self.plan.epsilon_nats,
            "rounds": self.rounds,
            "budget": self.plan.budget(),
            "cells": [cell.to_json() for cell in self.cells],
        }


def decide(plan: ProbePlan, rounds: Sequence[Iterable[CellRound]]) -> IdenticalResult | NoQuality:
    """Judge all rounds so far.

    Raises:
        UsageError: more rounds than planned (the level would no longer hold), or another cell.
    """
    if len(rounds) > plan.rounds:
        raise UsageError(f"quality: {len(rounds)} rounds, {plan.rounds} were planned")
    found = clusters(rounds)
    if foreign := found.keys() - set(plan.cells):
        raise UsageError(f"quality: {min(foreign)} is no cell of the plan")
    cells = tuple(_cell(plan, cell, found.get(cell, Clusters())) for cell in sorted(plan.cells))
    if not any(cell.answered or cell.broken for cell in cells):
        return NoQuality(reason="no prompt was answered by both arms")
    outcome, reason = _outcome(plan, len(rounds), cells)
    return IdenticalResult(
        outcome=outcome, reason=reason, plan=plan, rounds=len(rounds), cells=cells
    )


def _cell(plan: ProbePlan, cell: ProbeCell, found: Clusters) -> ProbeCellResult:
    excess, up = _bound(plan.passing, found.excess(), side=1)
    down = _bound(plan.failing, found.excess(), side=-1)[1]
    drop, drop_half = _bound(plan.failing, found.top1_drop(), side=-1)
    return ProbeCellResult(
        cell=cell,
        prompts=len(found.scores),
        tokens=found.tokens,
        asked=found.asked,
        answered=found.answered,
        excess=excess,
        lower=-math.inf if excess is None else excess - down,
        upper=math.inf if excess is None else excess + up,
        floor=found.floor(),
        top1_drop=drop,
        top1_lower=-math.inf if drop is None else drop - drop_half,
        broken=tuple(found.broken),
        stable_broken=tuple(found.stable_broken),
        missing=tuple(found.missing),
    )


def _bound(
    bounds: sequence.Sequence, values: Sequence[float], *, side: int
) -> tuple[float | None, float]:
    """Mean of the clusters and its distance to the upper (1) or lower (-1) bound."""
    if not values:
        return None, math.inf
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    lean = np.mean((np.array(values) - np.mean(values)) ** 3) / spread**3 if spread > 0 else 0.0
    half = bounds.half_width(np.array(spread), np.array(len(values)), np.array(side * lean))
    return float(np.mean(values)), float(half)


def _outcome(
    plan: ProbePlan, rounds: int, cells: Sequence[ProbeCellResult]
) -> tuple[QualityOutcome, str]:
    if refuted := [reason for cell in cells if (reason := _refuted(plan, cell))]:
        return QualityOutcome.FAILED, "; ".join(refuted)
    if doubts := [reason for cell in cells if (reason := _doubt(plan, cell))]:
        more = "; keep probing" if rounds < plan.rounds else "; all planned rounds are done"
        others = f" (and {len(doubts) - 1} more cells)" if len(doubts) > 1 else ""
        return QualityOutcome.UNDECIDED, f"{doubts[0]}{others}{more}"
    worst = max(cells, key=lambda cell: cell.upper)
    return QualityOutcome.PASSED, (
        f"excess divergence below {plan.epsilon_nats:g} nats a token in all {len(cells)} cells, "
        f"at most {worst.upper:.2g} ({worst.cell})"
    )


def _refuted(plan: ProbePlan, cell: ProbeCellResult) -> str | None:
    if cell.broken:
        return (
            f"{cell.cell}: the canary gave log-probabilities that are not finite in "
            f"{len(cell.broken)} answers, first {cell.broken[0]}"
        )
    if cell.lower > plan.epsilon_nats:
        return (
            f"{cell.cell}: {cell.excess:.2g} nats a token farther from the reference than stable, "
            f"at least {cell.lower:.2g} ({plan.epsilon_nats:g} allowed)"
        )
    if _tripped(plan, cell):
        return (
            f"{cell.cell}: the canary's first choice is the reference's in {cell.top1_drop:.1%} "
            f"fewer positions than stable's ({plan.top1_drop:.1%} trip)"
        )
    return None


def _tripped(plan: ProbePlan, cell: ProbeCellResult) -> bool:
    drop = cell.top1_drop
    return drop is not None and drop >= plan.top1_drop and cell.top1_lower > 0


def _doubt(plan: ProbePlan, cell: ProbeCellResult) -> str | None:
    if cell.stable_broken:
        return f"{cell.cell}: stable itself gave values that are not finite"
    if not cell.answered:
        return f"{cell.cell}: no prompt was answered by both arms"
    if cell.prompts < plan.min_prompts:
        return f"{cell.cell}: {cell.prompts} prompts, at least {plan.min_prompts} are needed"
    lost = cell.asked - cell.answered
    if lost > plan.max_missing * cell.asked:
        first = f", first {cell.missing[0]}" if cell.missing else ""
        return f"{cell.cell}: {lost} of {cell.asked} answers are missing{first}"
    if cell.upper >= plan.epsilon_nats:
        return (
            f"{cell.cell}: the excess divergence lies between {cell.lower:.2g} and "
            f"{cell.upper:.2g} nats a token; it must be shown below {plan.epsilon_nats:g}"
        )
    return None
