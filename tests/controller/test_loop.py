"""The loop over a cluster in memory: what it writes, in which order, and what it does on faults."""

from dataclasses import dataclass, field, replace

import pytest

from moe_serve.analysis.verdict import Verdict
from moe_serve.controller.loop import Controller
from moe_serve.controller.shadow import ShadowLeadership, ShadowRoute, ShadowStore
from moe_serve.errors import RolloutError
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.observation import HumanRequest, JudgeResult, JudgeUnavailable
from moe_serve.rollout.state import EntryKind, HoldReason, RolloutPhase, RolloutState
from moe_serve.rollout.weights import NO_CANARY_TRAFFIC, Track, Weights
from tests.kubernetes.fakes import (
    FakeEvents,
    FakeLeadership,
    FakeRoute,
    FakeStore,
    FakeTracks,
    Server,
)
from tests.rollout.world import World, plan_of
from tests.testing import failpoints

PLAN = plan_of()
STEP = Weights(stable=90, baseline=5, canary=5)


class Killed(BaseException):
    """What a failpoint does here instead of ending the process."""


@dataclass(slots=True)
class Says:
    """A judge that says what it is told to."""

    verdict: Verdict | None = Verdict.KEEP_GOING
    quality: QualityOutcome | None = QualityOutcome.PASSED

    def judge_result(self, state: RolloutState) -> JudgeResult | JudgeUnavailable:
        del state
        return World(plan=PLAN, verdict=self.verdict, quality=self.quality).seen().judge_result


@dataclass(slots=True)
class Bench:
    """One cluster, any number of controllers."""

    server: Server = field(default_factory=Server)
    now: list[float] = field(default_factory=lambda: [1000.0])
    judge: Says = field(default_factory=Says)

    def __post_init__(self) -> None:
        self.pods(stable=4, baseline=1, canary=1)

    def pods(self, **ready: int) -> None:
        seen = World(
            plan=PLAN, ready={Track(track): count for track, count in ready.items()}
        ).seen()
        self.server.tracks.update({Track(track): seen.tracks[Track(track)] for track in ready})

    def controller(self, me: str = "a", failpoint: str = "") -> Controller:
        def kill() -> None:
            raise Killed

        made = Controller(
            plan=PLAN,
            route=FakeRoute(self.server),
            tracks=FakeTracks(self.server),
            store=FakeStore(self.server),
            leadership=FakeLeadership(self.server, me, self.now),
            judge=self.judge,
            notifiers=[FakeEvents(self.server)],
            clock=lambda: self.now[0],
            monotonic=lambda: self.now[0],
        )
        if failpoint:
            failpoints.install(made, failpoints.Failpoint(failpoint, kill))
        return made

    def settle(self, controller: Controller) -> RolloutState:
        for _ in range(40):
            result = controller.reconcile()
            assert not result.error
            if not result.again:
                assert result.state is not None
                return result.state
        raise AssertionError("it never comes to rest")


def test_the_state_is_written_before_the_route() -> None:
    bench = Bench()
    bench.settle(bench.controller())
    writes = [write.split(" ")[0] for write in bench.server.writes]
    assert writes[0] == "state"
    revisions = [write for write in bench.server.writes if write.startswith("state steps")]
    first = bench.server.writes.index("route stable 90/baseline 5/canary 5")
    assert bench.server.writes.index(revisions[0]) < first
    assert bench.server.weights == STEP


def test_a_look_at_an_unchanged_cluster_writes_nothing() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    written = len(bench.server.writes)
    for _ in range(5):
        bench.now[0] += 10
        controller.reconcile()
    assert bench.server.writes[written:] == []


@pytest.mark.parametrize(
    "name",
    ["state.before", "state.after", "route.create.before", "route.create.after",
     "route.weights.before", "route.weights.after", "events.before", "events.after",
     "notified.before", "notified.after", "lease.before", "lease.after"],
)  # fmt: skip
def test_killed_at_a_write_the_next_controller_comes_to_the_same_end(name: str) -> None:
    bench = Bench()
    killed = 0
    for _ in range(30):
        try:
            bench.settle(bench.controller(failpoint=name))
            break
        except Killed:
            killed += 1
            if name.endswith("before"):
                bench.controller().reconcile()
    assert killed
    state = bench.settle(bench.controller())
    assert (state.phase, bench.server.weights) == (RolloutPhase.STEPS, STEP)
    notified = sorted(revision for _, revision in bench.server.events)
    assert notified == list(range(1, state.revision + 1))


def test_who_does_not_lead_writes_nothing() -> None:
    bench = Bench()
    bench.controller("a").reconcile()
    written = len(bench.server.writes)
    result = bench.controller("b").reconcile()
    assert (result.is_leader, bench.server.writes[written:]) == (False, [])


def test_a_leader_that_may_be_late_writes_nothing() -> None:
    bench = Bench()

    @dataclass(slots=True)
    class Slow(FakeRoute):
        """Reading takes longer than the lease is safe."""

        def read(self, rollout: str):
            bench.now[0] += 25
            return FakeRoute.read(self, rollout)

    controller = bench.controller()
    controller.route = Slow(bench.server)
    result = controller.reconcile()
    assert "leadership may be lost" in result.error
    assert bench.server.writes == []


def test_without_an_api_server_nothing_moves_and_the_loop_goes_on() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    bench.server.fault = "the API server does not answer (ConnectTimeoutError)"
    bench.judge.verdict = Verdict.ROLLBACK
    assert "does not answer" in controller.reconcile().error
    bench.server.fault = ""
    assert bench.settle(controller).phase is RolloutPhase.ROLLED_BACK
    assert bench.server.weights == NO_CANARY_TRAFFIC


REFUSED = 'PATCH httproutes: 403 it cannot patch resource "httproutes"'


class Forbidden(FakeRoute):
    """It may be read and not written."""

    def create(self, weights, *, rollout, stamp):
        raise RolloutError(REFUSED)

    def set_weights(self, weights, *, rollout, stamp):
        raise RolloutError(REFUSED)


def test_a_write_that_stays_refused_is_told_and_so_is_the_rollback_that_it_holds_up() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    controller.route = Forbidden(bench.server)
    bench.judge.verdict = Verdict.ROLLBACK
    result = controller.reconcile()
    assert (result.is_leader, result.again, result.error) == (True, False, REFUSED)
    assert "rollback" in [entry.title for entry in bench.server.events.values()]
    controller.reconcile()
    state = controller.reconcile().state
    assert state is not None and state.pending_hold is not None
    assert (state.phase, state.waiting_for) == (RolloutPhase.ROLLBACK, REFUSED)
    assert (state.pending_hold.reason, bench.server.weights) == (HoldReason.FAULT, STEP)
    [notified] = [
        entry for entry in bench.server.events.values() if entry.kind is EntryKind.PENDING_HOLD
    ]
    assert notified.detail == REFUSED
    written = len(bench.server.writes)
    for _ in range(5):
        bench.now[0] += 1
        controller.reconcile()
    assert bench.server.writes[written:] == []
    controller.route = FakeRoute(bench.server)
    controller.reconcile()
    state = bench.settle(controller)
    assert (state.phase, state.pending_hold, bench.server.weights) == (
        RolloutPhase.ROLLED_BACK,
        None,
        NO_CANARY_TRAFFIC,
    )


def test_a_write_that_is_refused_once_is_no_trouble() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.route = Forbidden(bench.server)
    while not controller.reconcile().error:
        pass
    controller.route = FakeRoute(bench.server)
    state = bench.settle(controller)
    assert (state.phase, bench.server.weights) == (RolloutPhase.STEPS, STEP)
    assert all(entry.kind is not EntryKind.PENDING_HOLD for entry in state.history)


def test_a_route_that_may_not_be_made_is_told() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.route = Forbidden(bench.server)
    for _ in range(4):
        state = controller.reconcile().state
    assert state is not None
    assert (state.phase, state.waiting_for) == (RolloutPhase.PENDING, REFUSED)
    assert REFUSED in [entry.detail for entry in bench.server.events.values()]


@dataclass(slots=True)
class Warned:
    """An API server that takes Events, or does not."""

    server: Server
    texts: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def warn(self, text: str, at: float) -> None:
        self.server.answer()
        self.texts.append(text)
        self.times.append(at)


def test_looks_that_fail_without_a_state_are_told_once_when_an_event_can_be_written() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.warnings.sink = notified = Warned(bench.server)
    bench.settle(controller)
    bench.server.fault = "the API server does not answer (ConnectTimeoutError)"
    for _ in range(3):
        controller.reconcile()
        bench.now[0] += 1
    assert notified.texts == []
    fault, bench.server.fault = bench.server.fault, ""
    bench.settle(controller)
    assert (notified.texts, notified.times) == ([fault], [1001.0])


def test_without_a_lease_that_is_told_once_and_one_failed_look_is_not() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.warnings.sink = notified = Warned(bench.server)

    class NoLease(FakeLeadership):
        def take(self) -> bool:
            raise RolloutError("GET leases: 403")

    lease, controller.leadership = controller.leadership, NoLease(bench.server, "a", bench.now)
    controller.reconcile()
    controller.leadership = lease
    controller.reconcile()
    assert notified.texts == []
    controller.leadership = NoLease(bench.server, "a", bench.now)
    for _ in range(5):
        controller.reconcile()
    assert notified.texts == ["GET leases: 403"]


def test_another_cause_of_the_same_streak_of_failures_is_told_too() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.warnings.sink = notified = Warned(bench.server)
    bench.server.fault = "the API server does not answer"
    for _ in range(3):
        controller.reconcile()
    bench.server.fault = ""

    class NoLease(FakeLeadership):
        def take(self) -> bool:
            raise RolloutError("GET leases: 403")

    controller.leadership = NoLease(bench.server, "a", bench.now)
    for _ in range(5):
        controller.reconcile()
    assert notified.texts == ["the API server does not answer", "GET leases: 403"]


def test_an_event_that_is_refused_for_good_is_not_asked_for_again_once_looks_succeed() -> None:
    bench = Bench()
    controller = bench.controller()

    class Refuses:
        asked = 0

        def warn(self, text: str, at: float) -> None:
            self.asked += 1
            raise RolloutError("POST events: 403")

    controller.warnings.sink = refuses = Refuses()
    bench.server.fault = "the API server does not answer"
    for _ in range(3):
        controller.reconcile()
    bench.server.fault = ""
    for _ in range(5):
        controller.reconcile()
    assert refuses.asked == 3


def test_a_write_that_is_refused_after_the_end_is_told() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.warnings.sink = notified = Warned(bench.server)
    bench.settle(controller)
    bench.judge.verdict = Verdict.ROLLBACK
    assert bench.settle(controller).phase is RolloutPhase.ROLLED_BACK
    controller.route, bench.server.weights = Forbidden(bench.server), None
    for _ in range(3):
        controller.reconcile()
    assert notified.texts == [REFUSED]


def test_what_was_refused_before_another_led_is_no_trouble_afterwards() -> None:
    bench = Bench()
    controller, other = bench.controller("a"), bench.controller("b")
    controller.route = Forbidden(bench.server)
    refused = 0
    while refused < 2:
        refused += bool(controller.reconcile().error)
    bench.server.holder = ""
    assert bench.settle(other).phase is RolloutPhase.STEPS
    controller.route = FakeRoute(bench.server)
    controller.reconcile()
    bench.server.holder = ""
    assert bench.settle(controller).phase is RolloutPhase.STEPS
    assert [
        each for each in bench.server.events.values() if each.kind is EntryKind.PENDING_HOLD
    ] == []


def test_arms_that_cannot_be_seen_are_told_and_move_nothing() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)

    class Blind:
        def observe(self):
            raise RolloutError("GET pods: 403 pods is forbidden")

    bench.judge.verdict, controller.tracks = Verdict.ROLLBACK, Blind()
    result = controller.reconcile()
    assert result.state is not None
    assert (result.state.phase, bench.server.weights) == (RolloutPhase.STEPS, STEP)
    assert "403 pods is forbidden" in result.state.waiting_for
    controller.reconcile()
    assert any("403" in entry.detail for entry in bench.server.events.values())


def test_an_approval_is_for_the_drift_that_was_seen_and_for_no_later_one() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    bench.server.weights, bench.server.route_version = Weights(stable=50, canary=50), 90
    held = bench.settle(controller)
    assert held.hold is not None
    bench.server.human_request = HumanRequest(approve=held.hold.revision)
    controller.reconcile()
    assert bench.server.weights == STEP
    bench.server.weights, bench.server.route_version = Weights(stable=1, canary=99), 91
    again = bench.settle(controller)
    assert (again.phase, bench.server.weights) == (RolloutPhase.HELD, Weights(stable=1, canary=99))


def test_a_clock_that_is_set_is_noticed() -> None:
    bench = Bench()
    controller = bench.controller()
    before = bench.settle(controller)
    start = bench.now[0]
    controller.monotonic = lambda: start + 10
    bench.now[0] += 50_000
    controller.reconcile()
    after = bench.controller().store.load().state
    assert after is not None
    assert after.phase is RolloutPhase.STEPS and after.step == 0
    assert before.in_force is not None and after.in_force is not None
    assert after.in_force - before.in_force == pytest.approx(49_990, abs=1)


def test_another_plan_waits_until_the_first_is_over_and_then_begins() -> None:
    bench = Bench()
    first = bench.controller()
    bench.settle(first)
    other = bench.controller()
    other.plan = plan_of(watch_hours=1)
    state = other.reconcile().state
    assert state is not None
    assert "the plan is not the one that began" in state.waiting_for
    assert bench.server.weights == STEP
    bench.judge.verdict = Verdict.ROLLBACK
    assert bench.settle(first).phase is RolloutPhase.ROLLED_BACK
    bench.judge.verdict, bench.judge.quality = Verdict.KEEP_GOING, None
    begun = bench.settle(other)
    assert (begun.phase, begun.plan) == (RolloutPhase.QUALITY, other.plan.digest)


def test_a_controller_that_dies_as_the_next_rollout_begins_tells_all_of_it() -> None:
    bench = Bench()
    first = bench.controller()
    bench.settle(first)
    bench.judge.verdict = Verdict.ROLLBACK
    over = bench.settle(first)
    assert len([key for key in bench.server.events if key[0] == over.rollout]) > 3
    bench.judge.verdict = Verdict.KEEP_GOING
    bench.now[0] += 60
    dies, plan = bench.controller(failpoint="state.after"), plan_of(watch_hours=1)
    dies.plan = plan
    with pytest.raises(Killed):
        dies.reconcile()
    follows = bench.controller()
    follows.plan = plan
    begun = bench.settle(follows)
    notified = [
        entry for (rollout, _), entry in bench.server.events.items() if rollout == begun.rollout
    ]
    assert begun.phase is RolloutPhase.STEPS
    assert notified == list(begun.history)


def test_a_shadow_decides_and_writes_nothing() -> None:
    bench = Bench()
    real = bench.controller()
    shadow = replace_parts(real, bench)
    state = bench.settle(shadow)
    assert (state.phase, state.weights(PLAN)) == (RolloutPhase.STEPS, STEP)
    assert (bench.server.writes, bench.server.weights) == ([], None)


def replace_parts(controller: Controller, bench: Bench) -> Controller:
    return replace(
        controller,
        route=ShadowRoute(FakeRoute(bench.server)),
        store=ShadowStore(),
        leadership=ShadowLeadership(),
        notifiers=(),
    )


def test_a_webhook_that_does_not_answer_holds_nobody_up() -> None:
    bench = Bench()

    class Deaf:
        name = "webhook:generic"

        def notify(self, rollout, entry):
            return False

    controller = bench.controller()
    controller.notifiers = [Deaf(), *controller.notifiers]
    state = bench.settle(controller)
    assert (state.phase, bench.server.weights) == (RolloutPhase.STEPS, STEP)
    assert bench.server.notified == {"events": state.revision}
