"""Where a rollout stands. It is written down before anything is done about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from moe_serve.rollout.observation import Identity
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.weights import Track, Weights

HISTORY = 30


class RolloutPhase(StrEnum):
    """In the order of a rollout that succeeds; HELD waits for a person, the last two are final."""

    PENDING = "pending"
    QUALITY = "quality"
    STEPS = "steps"
    PROMOTION = "promotion"
    WATCH = "watch"
    DONE = "done"
    HELD = "held"
    ROLLBACK = "rollback"
    ROLLED_BACK = "rolled_back"

    @property
    def final(self) -> bool:
        """Nothing follows."""
        return self in (RolloutPhase.DONE, RolloutPhase.ROLLED_BACK)


class HoldReason(StrEnum):
    """What keeps a rollout from going on; after its patience, what it is held for."""

    FAULT = "fault"
    ABSENT = "absent"
    DRIFT = "drift"
    IDENTITY = "identity"
    UNPLACEABLE = "unplaceable"
    BLIND = "blind"
    INVALID = "invalid"
    DEADLINE = "deadline"

    @property
    def clears_itself(self) -> bool:
        """A person mends it elsewhere, and the hold ends when it is gone."""
        match self:
            case HoldReason.BLIND | HoldReason.INVALID | HoldReason.DEADLINE:
                return False
            case (
                HoldReason.FAULT
                | HoldReason.ABSENT
                | HoldReason.DRIFT
                | HoldReason.IDENTITY
                | HoldReason.UNPLACEABLE
            ):
                return True
            case _:
                assert_never(self)

    @property
    def approvable(self) -> bool:
        """A person may say `go on`. Nobody may approve pods that were not judged, or lost GPUs."""
        return self in (HoldReason.DRIFT, HoldReason.BLIND, HoldReason.INVALID, HoldReason.DEADLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingHold:
    """One hold_reason, since when, and what was said of it at first."""

    reason: HoldReason
    since: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why it is held, what goes on after, and the revision that a person's approval must name."""

    reason: HoldReason
    resume: RolloutPhase
    revision: int
    phase_since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionEvidence:
    """What a promotion rests on."""

    at: float
    reason: str
    quality: str
    rules: str


class EntryKind(StrEnum):
    """What an entry of the history is about; `pending_hold` goes to Events alone."""

    PHASE = "phase"
    WEIGHTS = "weights"
    PENDING_HOLD = "pending_hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the history. `revision` is unique in a rollout and rises."""

    revision: int
    at: float
    kind: EntryKind
    title: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """All that a controller needs to continue after a restart.

    `weight_index` indexes the plan's weights, `previous_weight_index` those that they replaced.
    `weight_revision` is stamped on the route: it separates a write of this controller that is not
    visible yet from another writer's. `in_force` is since when the route has shown the weights.
    `comparison_since` and `rules` identify the judge's comparison, so that another controller
    replays the same statistics from the metrics store.
    `approved_overwrite` is the drift that a person approved to write over: this one and no other.
    """

    rollout: str
    plan: str
    phase: RolloutPhase
    phase_since: float
    revision: int = 0
    step: int = 0
    weight_index: int = 0
    previous_weight_index: int = 0
    weight_revision: int = 0
    in_force: float | None = None
    deadline_at: float
    comparison_since: float | None = None
    rules: str = ""
    judged: Mapping[Track, Identity]
    quality_passed: bool = False
    evidence: PromotionEvidence | None = None
    verdict: str = "none"
    verdict_reason: str = ""
    pending_hold: PendingHold | None = None
    hold: Hold | None = None
    approved_overwrite: str = ""
    rolled_back_from: RolloutPhase | None = None
    waiting_for: str = ""
    history: tuple[Entry, ...] = ()

    @property
    def stage(self) -> RolloutPhase:
        """The phase that it is in, or that a hold interrupted."""
        return self.hold.resume if self.hold else self.phase

    @property
    def promoted(self) -> bool:
        """The canary was promoted, whatever became of it."""
        after = (RolloutPhase.PROMOTION, RolloutPhase.WATCH, RolloutPhase.DONE)
        return self.stage in after or self.rolled_back_from in after

    def weights(self, plan: RolloutPlan) -> Weights:
        """The weights that are to be in force."""
        return plan.weight_steps[self.weight_index]

    def noted(self, kind: EntryKind, title: str, detail: str, at: float) -> "RolloutState":
        """The next revision, with one more line of history."""
        entry = Entry(revision=self.revision + 1, at=at, kind=kind, title=title, detail=detail)
        return replace(self, revision=entry.revision, history=(*self.history, entry)[-HISTORY:])


def initial(plan: RolloutPlan, now: float) -> RolloutState:
    """The state of a rollout that begins: nothing is decided, all traffic on stable."""
    return RolloutState(
        rollout=f"{plan.digest.removeprefix('sha256:')[:8]}-{int(now)}",
        plan=plan.digest,
        phase=RolloutPhase.PENDING,
        phase_since=now,
        deadline_at=now + plan.patience.deadline_seconds,
        judged={},
        waiting_for="the first look",
    ).noted(EntryKind.PHASE, "pending", f"rollout of {plan.name} by plan {plan.digest}", now)
