"""What must hold on every path, searched for by hypothesis: events in any order, and crashes."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moe_serve.analysis.verdict import Verdict
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.decide import decide
from moe_serve.rollout.observation import RouteAbsent, RouteForeign, RouteSeen
from moe_serve.rollout.plan import carries
from moe_serve.rollout.state import RolloutPhase, RolloutState
from moe_serve.rollout.state_json import from_json, to_json
from moe_serve.rollout.weights import NO_CANARY_TRAFFIC, Track, Weights
from tests.rollout.world import World, plan_of

_PLANS = (
    plan_of(),
    plan_of(
        arms={
            "stable": {"service": "gptoss-1", "replicas": 4},
            "canary": {"service": "gptoss-2", "replicas": 1},
        },
        steps=[{"canary": 20, "hold_minutes": 30, "needs": "promote"}],
        promotion={"replicas": 4, "warm_replicas": 0},
    ),
)
_ORDER = (
    RolloutPhase.PENDING,
    RolloutPhase.QUALITY,
    RolloutPhase.STEPS,
    RolloutPhase.PROMOTION,
    RolloutPhase.WATCH,
    RolloutPhase.DONE,
)
_BACK = (RolloutPhase.ROLLBACK, RolloutPhase.ROLLED_BACK)


def _rank(state: RolloutState) -> tuple[int, int, int]:
    stage = state.stage
    if stage in _BACK:
        return (1, _BACK.index(stage), 0)
    return (0, _ORDER.index(stage), state.step if stage is RolloutPhase.STEPS else 0)


class Rollout(RuleBasedStateMachine):
    """Events in any order; after each the controller looks once, and may die in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(plan=_PLANS[0], ready={Track.STABLE: 4})
        self.quality_was_passed = False
        self.promoted_by_judge = False

    @rule(plan=st.sampled_from(_PLANS))
    @precondition(lambda self: self.world.stored is None)
    def with_plan(self, plan) -> None:
        self.world.plan = plan

    @rule(minutes=st.sampled_from((0, 1, 10, 15, 30, 240, 720)))
    def time_goes_on(self, minutes: int) -> None:
        self.world.now += minutes * 60
        self.reconcile()

    @rule(
        verdict=st.sampled_from((None, *Verdict)),
        quality=st.sampled_from((None, *QualityOutcome)),
    )
    def the_judge_speaks(self, verdict: Verdict | None, quality: QualityOutcome | None) -> None:
        self.world.verdict, self.world.quality = verdict, quality
        self.reconcile()

    @rule(track=st.sampled_from(Track), count=st.integers(0, 5))
    def pods_come_and_go(self, track: Track, count: int) -> None:
        self.world.ready[track] = count
        self.reconcile()

    @rule()
    def all_is_well(self) -> None:
        """Without such a nudge hardly any run gets past the first phases."""
        world = self.world
        world.ready = {
            Track.STABLE: 4,
            Track.BASELINE: 1,
            Track.CANARY: 4 if world.state.promoted else 1,
        }
        world.unexpected_pods, world.full, world.faults = {}, {}, ()
        world.route_stuck, world.refused = False, ""
        world.quality, world.verdict = QualityOutcome.PASSED, Verdict.PROMOTE
        if isinstance(world.route, RouteForeign):
            world.route = RouteAbsent()
        for _ in range(12):
            world.now += 900
            self.reconcile()

    @rule(
        track=st.sampled_from(Track),
        count=st.integers(0, 1),
        kind=st.sampled_from(("unexpected_pods", "full")),
    )
    def odd_pods(self, track: Track, count: int, kind: str) -> None:
        getattr(self.world, kind)[track] = count
        self.reconcile()

    @rule(
        weights=st.sampled_from(
            (NO_CANARY_TRAFFIC, Weights(stable=50, canary=50), Weights(stable=0, canary=100))
        )
    )
    def somebody_writes_the_route(self, weights: Weights) -> None:
        stamp = self.world.route.stamp if isinstance(self.world.route, RouteSeen) else None
        self.world.route = RouteSeen(weights=weights, stamp=stamp)
        self.reconcile()

    @rule(gone=st.booleans())
    def the_route_goes(self, gone: bool) -> None:
        self.world.route = RouteAbsent() if gone else RouteForeign(detail="it is team-a's")
        self.reconcile()

    @rule(fault=st.booleans())
    def the_cluster_fails(self, fault: bool) -> None:
        self.world.faults = ("the API server does not answer",) if fault else ()
        self.reconcile()

    @rule(stuck=st.booleans())
    def writes_are_lost(self, stuck: bool) -> None:
        """The state was stored, and then the controller died before it wrote the route."""
        self.world.route_stuck = stuck
        self.reconcile()

    @rule(refused=st.booleans())
    def writes_are_refused(self, refused: bool) -> None:
        self.world.route_stuck = refused
        self.world.refused = "403, it may not patch" if refused else ""
        self.reconcile()

    @rule(minutes=st.sampled_from((-600, 600)))
    def the_clock_is_set(self, minutes: int) -> None:
        self.world.now += minutes * 60
        self.world.jump = minutes * 60.0
        self.reconcile()

    @rule()
    def a_person_approves(self) -> None:
        self.world.approve = self.world.state.hold.revision if self.world.state.hold else -1
        self.reconcile()

    @rule()
    def a_person_aborts(self) -> None:
        self.world.abort = self.world.state.rollout
        self.reconcile()
        self.world.abort = None

    def reconcile(self) -> None:
        world, before, written = self.world, self.world.state, len(self.world.given)
        seen = world.seen()
        world.step()
        after = world.state
        self.quality_was_passed |= (
            world.quality is QualityOutcome.PASSED and world.verdict is not None
        )
        if after.phase is RolloutPhase.PROMOTION and not before.promoted:
            assert world.verdict is Verdict.PROMOTE and world.quality is QualityOutcome.PASSED
            assert after.evidence is not None and before.phase is RolloutPhase.STEPS
            self.promoted_by_judge = True
        self._never_backwards(before, after)
        for weights in world.given[written:]:
            self._carried(weights, seen, before)

    def _never_backwards(self, before: RolloutState, after: RolloutState) -> None:
        assert _rank(after) >= _rank(before)
        assert after.revision >= before.revision
        if before.phase.final:
            assert after == before

    def _carried(self, weights: Weights, seen, before: RolloutState) -> None:
        """A weight that rises is one that the track's ready pods carry."""
        for track in (Track.BASELINE, Track.CANARY):
            shown = seen.route.weights.of(track) if isinstance(seen.route, RouteSeen) else 100
            if weights.of(track) > shown:
                assert carries(
                    self.world.plan.capacity,
                    weight=weights.of(track), ready=seen.track(track).ready(), of=seen.ready,
                )  # fmt: skip

    @invariant()
    def weights_are_only_ever_the_plans(self) -> None:
        assert set(self.world.given) <= set(self.world.plan.weight_steps)

    @invariant()
    def no_traffic_before_the_answers_are_the_same(self) -> None:
        if not self.quality_was_passed:
            assert all(weights == NO_CANARY_TRAFFIC for weights in self.world.given)

    @invariant()
    def no_more_than_the_steps_before_the_judge_said_promote(self) -> None:
        if not self.promoted_by_judge:
            most = max(step.weights.canary for step in self.world.plan.steps)
            assert all(weights.canary <= most for weights in self.world.given)

    @invariant()
    def the_state_survives_being_stored(self) -> None:
        assert from_json(to_json(self.world.state)) == self.world.state

    @invariant()
    def an_equal_look_at_a_cluster_that_obeyed_changes_nothing(self) -> None:
        world = replace(
            self.world, route_stuck=False, refused="", given=[], jump=0.0,
            ready=dict(self.world.ready),
        )  # fmt: skip
        world.settle()
        again = decide(world.plan, world.state, world.seen(), world.now)
        assert again.actions == () and again.state == world.state

    @invariant()
    def rollback_is_reachable(self) -> None:
        """Once stable carries all traffic, an abort ends at dark, from wherever it is."""
        if self.world.state.phase.final or isinstance(self.world.route, RouteForeign):
            return
        world = replace(
            self.world, route_stuck=False, refused="", given=[], faults=(), jump=0.0,
            ready={**self.world.ready, Track.STABLE: 4}, abort=self.world.state.rollout,
        )  # fmt: skip
        shown = world.weights
        world.settle()
        assert world.state.phase is RolloutPhase.ROLLED_BACK
        # What had not begun has nothing to take back, and leaves the route as somebody made it.
        untouched = world.state.rolled_back_from is RolloutPhase.PENDING and shown is not None
        assert world.weights == (shown if untouched else NO_CANARY_TRAFFIC)


Rollout.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_any_order_of_events = pytest.mark.timeout(600)(Rollout.TestCase)
