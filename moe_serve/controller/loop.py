"""One reconcile in five steps: observe, decide, write the state, act, notify."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_serve.controller.warnings import FailureWarnings
from moe_serve.errors import RolloutError
from moe_serve.rollout.actions import Action, CreateRoute
from moe_serve.rollout.decide import decide
from moe_serve.rollout.observation import (
    HumanRequest,
    Observation,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.ports import (
    Judge,
    Leadership,
    Notifier,
    Route,
    Store,
    StoredRollout,
    Tracks,
    TrafficLoad,
)
from moe_serve.rollout.state import RolloutState, initial
from moe_serve.rollout.weights import Track

_LOG = logging.getLogger(__name__)
_CLOCK_SET_SECONDS = 5.0
_REFUSED_AFTER = 2  # failed writes in a row: one failure is mostly a conflict with another writer


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileResult:
    """What one reconcile did. `again`: something changed, so reconcile again at once.

    `error` is why the reconcile failed, `audit_fault` why the audit log lacks its last line; both
    are empty otherwise. `load_age_seconds` is None where the load was never measured.
    """

    is_leader: bool
    state: RolloutState | None
    again: bool
    error: str = ""
    audit_fault: str = ""
    load_age_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Controller:
    """Reconciles one rollout; all calls come from one thread.

    `clock` gives seconds since the epoch, `monotonic` seconds that no one sets.
    """

    plan: RolloutPlan
    route: Route
    tracks: Tracks
    store: Store
    leadership: Leadership
    judge: Judge
    load: TrafficLoad | None = None
    notifiers: Sequence[Notifier] = ()
    warnings: FailureWarnings = field(default_factory=FailureWarnings)
    audit_fault: Callable[[], str] = str
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _clock_offset: float | None = None
    _failed_writes: int = 0
    _write_error: str = ""

    def reconcile(self) -> ReconcileResult:
        """One reconcile, and a warning if it failed where the state cannot show that."""
        result = replace(
            self._reconcile(),
            audit_fault=self.audit_fault(),
            load_age_seconds=self.load.age_seconds() if self.load else None,
        )
        # A leader's error is in the state's history, unless the rollout is over.
        in_history = result.is_leader and result.state and not result.state.phase.final
        error = "" if in_history else result.error
        self.warnings.update(error or result.audit_fault, self.clock())
        return result

    def _reconcile(self) -> ReconcileResult:
        stored = StoredRollout()
        try:
            is_leader = self.leadership.take()
            stored = self.store.load()
            if is_leader:
                return self._lead(stored)
            error = ""
        except RolloutError as failure:
            _LOG.warning("reconcile failed: %s", failure)
            error = str(failure)
        self._failed_writes = 0
        return ReconcileResult(is_leader=False, state=stored.state, again=False, error=error)

    def _lead(self, stored: StoredRollout) -> ReconcileResult:
        state = self._current(stored.state)
        now = self.clock()
        observation = self._observe(state, stored.human_request)
        decision = decide(self.plan, state, observation, now)
        kept = self._write_state(stored, state, decision.state)
        write_error = self._act(decision.actions, decision.state)
        self._notify(kept)
        changed = decision.state != stored.state or bool(decision.actions)
        return ReconcileResult(
            is_leader=True,
            state=decision.state,
            again=changed and not write_error,
            error=write_error,
        )

    def _current(self, state: RolloutState | None) -> RolloutState:
        """The stored state; a new rollout's if there is none, or if another plan's is over."""
        if state is None or (state.phase.final and state.plan != self.plan.digest):
            return initial(self.plan, self.clock())
        return state

    def _observe(self, state: RolloutState, human_request: HumanRequest) -> Observation:
        """What is there now; what cannot be read is one of the observation's faults."""
        faults = []
        tracks: Mapping[Track, TrackStatus] = {}
        route: RouteSeen | RouteAbsent | RouteForeign = RouteForeign(detail="not read")
        try:
            tracks = self.tracks.observe()
        except RolloutError as error:
            faults.append(str(error))
        try:
            route = self.route.read(state.rollout)
        except RolloutError as error:
            faults.append(str(error))
        return Observation(
            route=route,
            tracks=tracks,
            judge_result=self.judge.judge_result(state),
            human_request=human_request,
            load_pods=self.load.pods() if self.load else None,
            clock_jump_seconds=self._clock_jump(),
            faults=tuple(faults),
            refused=self._write_error if self._failed_writes >= _REFUSED_AFTER else "",
        )

    def _clock_jump(self) -> float:
        """Seconds that the wall clock was set by since the last reconcile; 0 for a small drift."""
        offset = self.clock() - self.monotonic()
        jump = 0.0 if self._clock_offset is None else offset - self._clock_offset
        self._clock_offset = offset
        return jump if abs(jump) > _CLOCK_SET_SECONDS else 0.0

    def _write_state(
        self, stored: StoredRollout, before: RolloutState, state: RolloutState
    ) -> StoredRollout:
        """What is stored now: `state`, and the notified revisions of this rollout."""
        same_rollout = stored.state is not None and stored.state.rollout == state.rollout
        kept = StoredRollout(state=state, notified=stored.notified if same_rollout else {})
        if state != stored.state:
            for entry in state.history:
                if entry.revision > before.revision:
                    _LOG.info("%s %s: %s", entry.kind, entry.title, entry.detail)
            self._require_leadership()
            self.store.save(state, kept.notified)
        return kept

    def _act(self, actions: Sequence[Action], state: RolloutState) -> str:
        """Carry out the actions; why the route could not be written, empty if nothing failed."""
        error = ""
        try:
            for action in actions:
                self._require_leadership()
                create = isinstance(action, CreateRoute)
                write = self.route.create if create else self.route.set_weights
                write(action.weights, rollout=state.rollout, stamp=action.stamp)
                _LOG.info("route %s: %s", self.plan.route.name, action.weights)
        except RolloutError as failure:
            if not self.leadership.holds:
                raise
            error = str(failure)
            _LOG.warning("route %s not written: %s", self.plan.route.name, error)
        self._failed_writes = self._failed_writes + 1 if error else 0
        self._write_error = error
        return error

    def _notify(self, kept: StoredRollout) -> None:
        """Send each notifier the history lines that it lacks; what fails is sent again later."""
        assert kept.state is not None, "the state is written before anyone is notified of it"
        notified = dict(kept.notified)
        for notifier in self.notifiers:
            for entry in kept.state.history:
                if entry.revision <= notified.get(notifier.name, 0):
                    continue
                try:
                    done = notifier.notify(kept.state.rollout, entry)
                except Exception as error:  # noqa: BLE001 - no notifier may stop a rollout
                    _LOG.warning("%s not notified: %s", notifier.name, error)
                    done = False
                if not done:
                    break
                notified[notifier.name] = entry.revision
        if notified != kept.notified:
            self._require_leadership()
            self.store.save(kept.state, notified)

    def _require_leadership(self) -> None:
        if not self.leadership.holds:
            raise RolloutError("leadership may be lost: nothing is written")
