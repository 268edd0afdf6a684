"""The loop over a cluster in memory: what it writes, in which order, and what it does on faults."""

from dataclasses import dataclass, field, replace

import pytest

from moe_serve.analysis.verdict import Verdict
from moe_serve.controller.failpoints import Failpoint
from moe_serve.controller.loop import Controller
from moe_serve.controller.shadow import Alone, ShadowRoute, ShadowStore
from moe_serve.errors import RolloutError
from moe_serve.quality.result import Outcome
from moe_serve.rollout.observation import NoWord, Person, Word
from moe_serve.rollout.state import Kind, Phase, State, Trouble
from moe_serve.rollout.weights import DARK, Arm, Weights
from tests.kubernetes.fakes import (
    FakeArms,
    FakeEvents,
    FakeLeadership,
    FakeRoute,
    FakeStore,
    Server,
)
from tests.rollout.world import World, plan_of

PLAN = plan_of()
STEP = Weights(stable=90, baseline=5, canary=5)


class Killed(BaseException):
    """What a failpoint does here instead of ending the process."""


@dataclass(slots=True)
class Says:
    """A judge that says what it is told to."""

    verdict: Verdict | None = Verdict.KEEP_GOING
    quality: Outcome | None = Outcome.PASSED

    def word(self, state: State) -> Word | NoWord:
        del state
        return World(plan=PLAN, verdict=self.verdict, quality=self.quality).seen().word


@dataclass(slots=True)
class Bench:
    """One cluster, any number of controllers."""

    server: Server = field(default_factory=Server)
    now: list[float] = field(default_factory=lambda: [1000.0])
    judge: Says = field(default_factory=Says)

    def __post_init__(self) -> None:
        self.pods(stable=4, baseline=1, canary=1)

    def pods(self, **ready: int) -> None:
        seen = World(plan=PLAN, ready={Arm(arm): count for arm, count in ready.items()}).seen()
        self.server.arms.update({Arm(arm): seen.arms[Arm(arm)] for arm in ready})

    def controller(self, me: str = "a", failpoint: str = "") -> Controller:
        def kill() -> None:
            raise Killed

        return Controller(
            plan=PLAN,
            route=FakeRoute(self.server),
            arms=FakeArms(self.server),
            store=FakeStore(self.server),
            leadership=FakeLeadership(self.server, me, self.now),
            judge=self.judge,
            listeners=[FakeEvents(self.server)],
            failpoint=Failpoint(name=failpoint, kill=kill),
            clock=lambda: self.now[0],
            monotonic=lambda: self.now[0],
        )

    def settle(self, controller: Controller) -> State:
        for _ in range(40):
            looked = controller.look()
            assert not looked.error
            if not looked.again:
                assert looked.state is not None
                return looked.state
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
        controller.look()
    assert bench.server.writes[written:] == []


@pytest.mark.parametrize(
    "name",
    ["state.before", "state.after", "route.create.before", "route.create.after",
     "route.weights.before", "route.weights.after", "events.before", "events.after",
     "told.before", "told.after", "lease.before", "lease.after"],
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
                bench.controller().look()
    assert killed
    state = bench.settle(bench.controller())
    assert (state.phase, bench.server.weights) == (Phase.STEPS, STEP)
    told = sorted(revision for _, revision in bench.server.events)
    assert told == list(range(1, state.revision + 1))


def test_who_does_not_lead_writes_nothing() -> None:
    bench = Bench()
    bench.controller("a").look()
    written = len(bench.server.writes)
    looked = bench.controller("b").look()
    assert (looked.leads, bench.server.writes[written:]) == (False, [])


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
    looked = controller.look()
    assert "leadership may be lost" in looked.error
    assert bench.server.writes == []


def test_without_an_api_server_nothing_moves_and_the_loop_goes_on() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    bench.server.fault = "the API server does not answer (ConnectTimeoutError)"
    bench.judge.verdict = Verdict.ROLLBACK
    assert "does not answer" in controller.look().error
    bench.server.fault = ""
    assert bench.settle(controller).phase is Phase.ROLLED_BACK
    assert bench.server.weights == DARK


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
    looked = controller.look()
    assert (looked.leads, looked.again, looked.error) == (True, False, REFUSED)
    assert "rollback" in [entry.title for entry in bench.server.events.values()]
    controller.look()
    state = controller.look().state
    assert state is not None and state.concern is not None
    assert (state.phase, state.waits_for) == (Phase.ROLLBACK, REFUSED)
    assert (state.concern.trouble, bench.server.weights) == (Trouble.FAULT, STEP)
    [told] = [entry for entry in bench.server.events.values() if entry.kind is Kind.CONCERN]
    assert told.detail == REFUSED
    written = len(bench.server.writes)
    for _ in range(5):
        bench.now[0] += 1
        controller.look()
    assert bench.server.writes[written:] == []
    controller.route = FakeRoute(bench.server)
    controller.look()
    state = bench.settle(controller)
    assert (state.phase, state.concern, bench.server.weights) == (Phase.ROLLED_BACK, None, DARK)


def test_a_write_that_is_refused_once_is_no_trouble() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.route = Forbidden(bench.server)
    while not controller.look().error:
        pass
    controller.route = FakeRoute(bench.server)
    state = bench.settle(controller)
    assert (state.phase, bench.server.weights) == (Phase.STEPS, STEP)
    assert all(entry.kind is not Kind.CONCERN for entry in state.history)


def test_a_route_that_may_not_be_made_is_told() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.route = Forbidden(bench.server)
    for _ in range(4):
        state = controller.look().state
    assert state is not None
    assert (state.phase, state.waits_for) == (Phase.PENDING, REFUSED)
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
    controller.alarm = told = Warned(bench.server)
    bench.settle(controller)
    bench.server.fault = "the API server does not answer (ConnectTimeoutError)"
    for _ in range(3):
        controller.look()
        bench.now[0] += 1
    assert told.texts == []
    fault, bench.server.fault = bench.server.fault, ""
    bench.settle(controller)
    assert (told.texts, told.times) == ([fault], [1001.0])


def test_without_a_lease_that_is_told_once_and_one_failed_look_is_not() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.alarm = told = Warned(bench.server)

    class NoLease(FakeLeadership):
        def take(self) -> bool:
            raise RolloutError("GET leases: 403")

    lease, controller.leadership = controller.leadership, NoLease(bench.server, "a", bench.now)
    controller.look()
    controller.leadership = lease
    controller.look()
    assert told.texts == []
    controller.leadership = NoLease(bench.server, "a", bench.now)
    for _ in range(5):
        controller.look()
    assert told.texts == ["GET leases: 403"]


def test_another_cause_of_the_same_streak_of_failures_is_told_too() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.alarm = told = Warned(bench.server)
    bench.server.fault = "the API server does not answer"
    for _ in range(3):
        controller.look()
    bench.server.fault = ""

    class NoLease(FakeLeadership):
        def take(self) -> bool:
            raise RolloutError("GET leases: 403")

    controller.leadership = NoLease(bench.server, "a", bench.now)
    for _ in range(5):
        controller.look()
    assert told.texts == ["the API server does not answer", "GET leases: 403"]


def test_an_event_that_is_refused_for_good_is_not_asked_for_again_once_looks_succeed() -> None:
    bench = Bench()
    controller = bench.controller()

    class Refuses:
        asked = 0

        def warn(self, text: str, at: float) -> None:
            self.asked += 1
            raise RolloutError("POST events: 403")

    controller.alarm = refuses = Refuses()
    bench.server.fault = "the API server does not answer"
    for _ in range(3):
        controller.look()
    bench.server.fault = ""
    for _ in range(5):
        controller.look()
    assert refuses.asked == 3


def test_a_write_that_is_refused_after_the_end_is_told() -> None:
    bench = Bench()
    controller = bench.controller()
    controller.alarm = told = Warned(bench.server)
    bench.settle(controller)
    bench.judge.verdict = Verdict.ROLLBACK
    assert bench.settle(controller).phase is Phase.ROLLED_BACK
    controller.route, bench.server.weights = Forbidden(bench.server), None
    for _ in range(3):
        controller.look()
    assert told.texts == [REFUSED]


def test_what_was_refused_before_another_led_is_no_trouble_afterwards() -> None:
    bench = Bench()
    controller, other = bench.controller("a"), bench.controller("b")
    controller.route = Forbidden(bench.server)
    refused = 0
    while refused < 2:
        refused += bool(controller.look().error)
    bench.server.holder = ""
    assert bench.settle(other).phase is Phase.STEPS
    controller.route = FakeRoute(bench.server)
    controller.look()
    bench.server.holder = ""
    assert bench.settle(controller).phase is Phase.STEPS
    assert [each for each in bench.server.events.values() if each.kind is Kind.CONCERN] == []


def test_arms_that_cannot_be_seen_are_told_and_move_nothing() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)

    class Blind:
        def seen(self):
            raise RolloutError("GET pods: 403 pods is forbidden")

    bench.judge.verdict, controller.arms = Verdict.ROLLBACK, Blind()
    looked = controller.look()
    assert looked.state is not None
    assert (looked.state.phase, bench.server.weights) == (Phase.STEPS, STEP)
    assert "403 pods is forbidden" in looked.state.waits_for
    controller.look()
    assert any("403" in entry.detail for entry in bench.server.events.values())


def test_an_approval_is_for_the_drift_that_was_seen_and_for_no_later_one() -> None:
    bench = Bench()
    controller = bench.controller()
    bench.settle(controller)
    bench.server.weights, bench.server.route_version = Weights(stable=50, canary=50), 90
    held = bench.settle(controller)
    assert held.hold is not None
    bench.server.person = Person(approve=held.hold.revision)
    controller.look()
    assert bench.server.weights == STEP
    bench.server.weights, bench.server.route_version = Weights(stable=1, canary=99), 91
    again = bench.settle(controller)
    assert (again.phase, bench.server.weights) == (Phase.HELD, Weights(stable=1, canary=99))


def test_a_clock_that_is_set_is_noticed() -> None:
    bench = Bench()
    controller = bench.controller()
    before = bench.settle(controller)
    start = bench.now[0]
    controller.monotonic = lambda: start + 10
    bench.now[0] += 50_000
    controller.look()
    after = bench.controller().store.load().state
    assert after is not None
    assert after.phase is Phase.STEPS and after.step == 0
    assert before.in_force is not None and after.in_force is not None
    assert after.in_force - before.in_force == pytest.approx(49_990, abs=1)


def test_another_plan_waits_until_the_first_is_over_and_then_begins() -> None:
    bench = Bench()
    first = bench.controller()
    bench.settle(first)
    other = bench.controller()
    other.plan = plan_of(watch_hours=1)
    state = other.look().state
    assert state is not None
    assert "the plan is not the one that began" in state.waits_for
    assert bench.server.weights == STEP
    bench.judge.verdict = Verdict.ROLLBACK
    assert bench.settle(first).phase is Phase.ROLLED_BACK
    bench.judge.verdict, bench.judge.quality = Verdict.KEEP_GOING, None
    begun = bench.settle(other)
    assert (begun.phase, begun.plan) == (Phase.QUALITY, other.plan.digest)


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
        dies.look()
    follows = bench.controller()
    follows.plan = plan
    begun = bench.settle(follows)
    told = [
        entry for (rollout, _), entry in bench.server.events.items() if rollout == begun.rollout
    ]
    assert begun.phase is Phase.STEPS
    assert told == list(begun.history)


def test_a_shadow_decides_and_writes_nothing() -> None:
    bench = Bench()
    real = bench.controller()
    shadow = replace_parts(real, bench)
    state = bench.settle(shadow)
    assert (state.phase, state.weights(PLAN)) == (Phase.STEPS, STEP)
    assert (bench.server.writes, bench.server.weights) == ([], None)


def replace_parts(controller: Controller, bench: Bench) -> Controller:
    return replace(
        controller,
        route=ShadowRoute(FakeRoute(bench.server)),
        store=ShadowStore(),
        leadership=Alone(),
        listeners=(),
    )


def test_a_webhook_that_does_not_answer_holds_nobody_up() -> None:
    bench = Bench()

    class Deaf:
        name = "webhook:generic"

        def tell(self, rollout, entry):
            return False

    controller = bench.controller()
    controller.listeners = [Deaf(), *controller.listeners]
    state = bench.settle(controller)
    assert (state.phase, bench.server.weights) == (Phase.STEPS, STEP)
    assert bench.server.told == {"events": state.revision}
