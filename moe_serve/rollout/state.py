"""Where a rollout stands. It is written down before anything is done about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from moe_serve.rollout.observation import Identity
from moe_serve.rollout.plan import Plan
from moe_serve.rollout.weights import Arm, Weights

HISTORY = 30


class Phase(StrEnum):
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
        return self in (Phase.DONE, Phase.ROLLED_BACK)


class Trouble(StrEnum):
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
            case Trouble.BLIND | Trouble.INVALID | Trouble.DEADLINE:
                return False
            case (
                Trouble.FAULT
                | Trouble.ABSENT
                | Trouble.DRIFT
                | Trouble.IDENTITY
                | Trouble.UNPLACEABLE
            ):
                return True
            case _:
                assert_never(self)

    @property
    def approvable(self) -> bool:
        """A person may say `go on`. Nobody may approve pods that were not judged, or lost GPUs."""
        return self in (Trouble.DRIFT, Trouble.BLIND, Trouble.INVALID, Trouble.DEADLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One trouble, since when, and what was said of it at first."""

    trouble: Trouble
    since: float
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why it is held, what goes on after, and the revision that a person's approval must name."""

    cause: Trouble
    resume: Phase
    revision: int
    phase_since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a promotion rests on."""

    at: float
    reason: str
    quality: str
    rules: str


class Kind(StrEnum):
    """Of an entry of the history; `concern` is told in Events only, the others to people too."""

    PHASE = "phase"
    WEIGHTS = "weights"
    CONCERN = "concern"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the history. `revision` is unique in a rollout and rises."""

    revision: int
    at: float
    kind: Kind
    title: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a controller must know to go on after a restart.

    `rung` indexes the plan's weights, `rung_before` those that they replaced; `rung_revision` is
    stamped on the route, so that a write of ours that is still missing is told from a stranger's.
    `in_force` is since when the route has shown the rung. `comparison_since` and `rules` pin the
    judge's comparison: together with the metrics' store they are its statistics, replayed.
    `retake` is the drift that a person approved to write over: this one and no other.
    """

    rollout: str
    plan: str
    phase: Phase
    phase_since: float
    revision: int = 0
    step: int = 0
    rung: int = 0
    rung_before: int = 0
    rung_revision: int = 0
    in_force: float | None = None
    deadline_at: float
    comparison_since: float | None = None
    rules: str = ""
    judged: Mapping[Arm, Identity]
    quality_passed: bool = False
    evidence: Evidence | None = None
    verdict: str = "none"
    verdict_reason: str = ""
    concern: Concern | None = None
    hold: Hold | None = None
    retake: str = ""
    rolled_back_from: Phase | None = None
    waits_for: str = ""
    history: tuple[Entry, ...] = ()

    @property
    def stage(self) -> Phase:
        """The phase that it is in, or that a hold interrupted."""
        return self.hold.resume if self.hold else self.phase

    @property
    def promoted(self) -> bool:
        """The canary was promoted, whatever became of it."""
        after = (Phase.PROMOTION, Phase.WATCH, Phase.DONE)
        return self.stage in after or self.rolled_back_from in after

    def weights(self, plan: Plan) -> Weights:
        """The weights that are to be in force."""
        return plan.rungs[self.rung]

    def noted(self, kind: Kind, title: str, detail: str, at: float) -> "State":
        """The next revision, with one more line of history."""
        entry = Entry(revision=self.revision + 1, at=at, kind=kind, title=title, detail=detail)
        return replace(self, revision=entry.revision, history=(*self.history, entry)[-HISTORY:])


def initial(plan: Plan, now: float) -> State:
    """The state of a rollout that begins: nothing is decided, all traffic on stable."""
    return State(
        rollout=f"{plan.digest.removeprefix('sha256:')[:8]}-{int(now)}",
        plan=plan.digest,
        phase=Phase.PENDING,
        phase_since=now,
        deadline_at=now + plan.patience.deadline_seconds,
        judged={},
        waits_for="the first look",
    ).noted(Kind.PHASE, "pending", f"rollout of {plan.name} by plan {plan.digest}", now)
