"""One look after the other: observe, decide, write the state down, act, tell."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moe_serve.controller.failpoints import Failpoint
from moe_serve.errors import RolloutError
from moe_serve.rollout.actions import Action, CreateRoute, Decision, SetWeights
from moe_serve.rollout.decide import decide
from moe_serve.rollout.observation import (
    Observation,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.ports import (
    Arms,
    Judge,
    Leadership,
    Notifier,
    Route,
    Store,
    StoredRollout,
    TrafficLoad,
    WarningSink,
)
from moe_serve.rollout.state import RolloutState, initial
from moe_serve.rollout.weights import Track

_LOG = logging.getLogger(__name__)
_CLOCK_SET_SECONDS = 5.0
_WARN_AFTER = 2  # looks that failed in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileResult:
    """What came of a look. `again`: something changed, so look at once."""

    is_leader: bool
    state: RolloutState | None
    again: bool
    error: str = ""
    audit_fault: str = ""
    load_age_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Controller:
    """Everything that it does, it does in `reconcile`, in one thread."""

    plan: RolloutPlan
    route: Route
    arms: Arms
    store: Store
    leadership: Leadership
    judge: Judge
    load: TrafficLoad | None = None
    notifiers: Sequence[Notifier] = ()
    alarm: WarningSink | None = None
    audit_fault: Callable[[], str] = str
    failpoint: Failpoint = field(default_factory=Failpoint)
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _offset: float | None = None
    _failed: str = ""
    _refused: str = ""
    _failures: int = 0
    _error: str = ""
    _warned: str = ""
    _pending_warning: tuple[str, float] | None = None

    def reconcile(self) -> ReconcileResult:
        """Look once, and do what follows."""
        result = replace(
            self._reconcile(),
            audit_fault=self.audit_fault(),
            load_age_seconds=self.load.age_seconds() if self.load else None,
        )
        over = result.state is not None and result.state.phase.final
        told = "" if result.is_leader and not over else result.error
        self._emit_warning_event(told or result.audit_fault)
        return result

    def _reconcile(self) -> ReconcileResult:
        state: RolloutState | None = None
        try:
            self.failpoint("lease.before")
            is_leader = self.leadership.take()
            self.failpoint("lease.after")
            kept = self.store.load()
            state = kept.state
            if not is_leader:
                self._failed = self._refused = ""
                return ReconcileResult(is_leader=False, state=state, again=False)
            return self._lead(kept)
        except RolloutError as error:
            _LOG.warning("look failed: %s", error)
            self._failed = self._refused = ""
            return ReconcileResult(is_leader=False, state=state, again=False, error=str(error))

    def _emit_warning_event(self, error: str) -> None:
        """What no history tells, an Event does, once for each cause, when the API server takes it.

        A state that cannot be read or written tells of nothing, and one that is final of nothing
        new. What fails once is mostly over at the next look.
        """
        self._failures = self._failures + 1 if error else 0
        lasts, self._error = error == self._error, error
        if not error:
            self._warned = ""
        elif self._failures == _WARN_AFTER or (
            self._failures > _WARN_AFTER and lasts and error != self._warned
        ):
            self._warned, self._pending_warning = error, (error, self.clock())
        if self._pending_warning is None or self.alarm is None:
            return
        try:
            self.alarm.warn(*self._pending_warning)
        except RolloutError as refused:
            _LOG.warning("no Event of that: %s", refused)
            if error:
                return
        self._pending_warning = None

    def _lead(self, kept: StoredRollout) -> ReconcileResult:
        state, now = self._current(kept.state), self.clock()
        seen = self._observe(state, kept)
        decision = decide(self.plan, state, seen, now)
        # Of another rollout nothing was told yet, whatever was of the last.
        same = kept.state is not None and kept.state.rollout == decision.state.rollout
        before = kept.notified if same else {}
        if decision.state != kept.state:
            self._log(state, decision.state)
            self._write("state", lambda: self.store.save(decision.state, before))
        failed = self._acted(decision)
        notified = self._notify(decision.state, before)
        if notified != before:
            self._write("notified", lambda: self.store.save(decision.state, notified))
        changed = decision.state != kept.state or bool(decision.actions)
        return ReconcileResult(
            is_leader=True, state=decision.state, again=changed and not failed, error=failed
        )

    def _acted(self, decision: Decision) -> str:
        """Why the route could not be written; empty if it was, or need not be.

        What fails once is mostly somebody who was faster; what fails again is told.
        """
        failed = ""
        try:
            for action in decision.actions:
                self._act(action, decision.state)
        except RolloutError as error:
            if not self.leadership.holds:
                raise
            _LOG.warning("route %s not written: %s", self.plan.route.name, error)
            failed = str(error)
        self._failed, self._refused = failed, failed if self._failed else ""
        return failed

    def _current(self, kept: RolloutState | None) -> RolloutState:
        """The state to go on with; a rollout that is over makes room for another plan's."""
        if kept is None or (kept.phase.final and kept.plan != self.plan.digest):
            return initial(self.plan, self.clock())
        return kept

    def _observe(self, state: RolloutState, kept: StoredRollout) -> Observation:
        faults = []
        arms: Mapping[Track, TrackStatus] = {}
        route: RouteSeen | RouteAbsent | RouteForeign = RouteForeign(detail="not read")
        try:
            arms = self.arms.seen()
        except RolloutError as error:
            faults.append(str(error))
        try:
            route = self.route.read(state.rollout)
        except RolloutError as error:
            faults.append(str(error))
        return Observation(
            route=route,
            arms=arms,
            judge_result=self.judge.judge_result(state),
            human_request=kept.human_request,
            load_pods=self.load.pods() if self.load else None,
            clock_jump_seconds=self._clock_jump(),
            faults=tuple(faults),
            refused=self._refused,
        )

    def _clock_jump(self) -> float:
        """How far the wall clock moved against the monotonic one since the last look."""
        offset = self.clock() - self.monotonic()
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        return jump if abs(jump) > _CLOCK_SET_SECONDS else 0.0

    def _act(self, action: Action, state: RolloutState) -> None:
        name, write = {
            CreateRoute: ("route.create", self.route.create),
            SetWeights: ("route.weights", self.route.set_weights),
        }[type(action)]
        self._write(name, lambda: write(action.weights, rollout=state.rollout, stamp=action.stamp))
        _LOG.info("route %s: %s", self.plan.route.name, action.weights)

    def _notify(self, state: RolloutState, before: Mapping[str, int]) -> dict[str, int]:
        """Tell what is new; who cannot be told now is told at a later look."""
        notified = dict(before)
        for notifier in self.notifiers:
            for entry in state.history:
                if entry.revision <= notified.get(notifier.name, 0):
                    continue
                self.failpoint(f"{notifier.name.partition(':')[0]}.before")
                try:
                    done = notifier.notify(state.rollout, entry)
                except Exception as error:  # noqa: BLE001 - no notifier may stop a rollout
                    _LOG.warning("%s not told: %s", notifier.name, error)
                    done = False
                self.failpoint(f"{notifier.name.partition(':')[0]}.after")
                if not done:
                    break
                notified[notifier.name] = entry.revision
        return notified

    def _write(self, name: str, write: Callable[[], None]) -> None:
        """A write, if we still lead for certain."""
        if not self.leadership.holds:
            raise RolloutError("leadership may be lost: nothing is written")
        self.failpoint(f"{name}.before")
        write()
        self.failpoint(f"{name}.after")

    def _log(self, before: RolloutState, after: RolloutState) -> None:
        for entry in after.history:
            if entry.revision > before.revision:
                _LOG.info("%s %s: %s", entry.kind, entry.title, entry.detail)
