"""A cluster in memory that does what a rollout decides, and can be made to misbehave."""

from dataclasses import dataclass, field, replace
from typing import Any

from moe_serve.analysis.verdict import Verdict
from moe_serve.config import rollout_file as plan_file
from moe_serve.quality.result import QualityOutcome
from moe_serve.rollout.actions import CreateRoute, SetWeights
from moe_serve.rollout.decide import decide
from moe_serve.rollout.observation import (
    HumanRequest,
    Identity,
    JudgeResult,
    JudgeUnavailable,
    Observation,
    PodStatus,
    RouteAbsent,
    RouteForeign,
    RouteSeen,
    TrackStatus,
)
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.state import RolloutState, initial
from moe_serve.rollout.weights import Track, Weights

DOCUMENT: dict[str, Any] = {
    "name": "gptoss",
    "route": {"gateway": {"name": "inference"}},
    "arms": {
        "stable": {"service": "gptoss-1", "replicas": 4},
        "baseline": {"service": "gptoss-1b", "replicas": 1},
        "canary": {"service": "gptoss-2", "replicas": 1},
    },
    "steps": [
        {"canary": 5, "baseline": 5, "hold_minutes": 10},
        {"canary": 10, "baseline": 10, "hold_minutes": 30, "needs": "promote"},
    ],
    "promotion": {"replicas": 4, "warm_replicas": 2, "weights": [25, 50, 75, 100]},
    "capacity": {"pods_for_all_traffic": 4, "gpus_per_pod": 8, "gpus": 48},
    "watch_hours": 4,
    "patience": {"deadline_hours": 12},
}
OLD = Identity(pod_spec_digest="sha256:old", image_id="img@sha256:1")
NEW = Identity(pod_spec_digest="sha256:new", image_id="img@sha256:1")
OTHER = Identity(pod_spec_digest="sha256:other", image_id="img@sha256:1")
RUNS = {Track.STABLE: OLD, Track.BASELINE: OLD, Track.CANARY: NEW}


def plan_of(**parts: Any) -> RolloutPlan:
    """The plan of the tests, some parts replaced."""
    return plan_file.parse({**DOCUMENT, **parts}, "plan")


@dataclass(slots=True, kw_only=True)
class World:
    """What an observation is made of, and the state as it was stored last."""

    plan: RolloutPlan = field(default_factory=plan_of)
    now: float = 0.0
    ready: dict[Track, int] = field(default_factory=dict)
    unexpected_pods: dict[Track, int] = field(default_factory=dict)
    full: dict[Track, int] = field(default_factory=dict)
    missing: set[Track] = field(default_factory=set)
    verdict: Verdict | None = Verdict.KEEP_GOING
    quality: QualityOutcome | None = None
    since: float = 0.0
    judge_fault: str = "not asked"
    route: RouteSeen | RouteAbsent | RouteForeign = field(default_factory=RouteAbsent)
    route_stuck: bool = False
    approve: int | None = None
    abort: str | None = None
    load_pods: float | None = None
    faults: tuple[str, ...] = ()
    refused: str = ""
    jump: float = 0.0
    stored: RolloutState | None = None
    given: list[Weights] = field(default_factory=list)

    @property
    def state(self) -> RolloutState:
        """The state as it is stored."""
        if self.stored is None:
            self.stored = initial(self.plan, self.now)
        return self.stored

    def seen(self) -> Observation:
        """What a controller would see now."""
        judge_result: JudgeResult | JudgeUnavailable = JudgeUnavailable(reason=self.judge_fault)
        if self.verdict is not None:
            judge_result = JudgeResult(
                verdict=self.verdict,
                reason=f"because {self.verdict.value}",
                quality=self.quality,
                quality_reason=f"quality {self.quality}",
                judged_at=self.now,
                since=self.since,
                rules="sha256:rules",
            )
        return Observation(
            route=self.route,
            tracks={track: self._track(track) for track in self.plan.tracks},
            judge_result=judge_result,
            human_request=HumanRequest(approve=self.approve, abort=self.abort),
            load_pods=self.load_pods,
            clock_jump_seconds=self.jump,
            faults=self.faults,
            refused=self.refused,
        )

    def _track(self, track: Track) -> TrackStatus:
        def pods(kind: str, count: int, who: Identity, **flags: bool) -> list[PodStatus]:
            return [
                PodStatus(name=f"{track}-{kind}-{i}", identity=who, **flags) for i in range(count)
            ]

        waiting = replace(RUNS[track], image_id=None)
        return TrackStatus(
            found=track not in self.missing,
            pods=(
                *pods("good", self.ready.get(track, 0), RUNS[track], ready=True),
                *pods("odd", self.unexpected_pods.get(track, 0), OTHER, ready=True),
                *pods("waiting", self.full.get(track, 0), waiting, ready=False, unschedulable=True),
            ),
        )

    def step(self) -> bool:
        """Decide once, store, act; True if anything changed."""
        seen = self.seen()
        decision = decide(self.plan, self.state, seen, self.now)
        self.jump = 0.0
        changed = decision.state != self.state or bool(decision.actions and not self.route_stuck)
        self.stored = decision.state
        for action in () if self.route_stuck else decision.actions:
            match action:
                case CreateRoute(weights=weights, stamp=stamp):
                    assert isinstance(self.route, RouteAbsent)
                case SetWeights(weights=weights, stamp=stamp):
                    assert isinstance(self.route, RouteSeen)
            self.route = RouteSeen(weights=weights, stamp=stamp)
            self.given.append(weights)
        return changed

    def settle(self) -> None:
        """Decide until nothing changes any more."""
        for _ in range(30):
            if not self.step():
                return
        raise AssertionError("it never comes to rest")

    @property
    def weights(self) -> Weights | None:
        """What the route shows."""
        return self.route.weights if isinstance(self.route, RouteSeen) else None
