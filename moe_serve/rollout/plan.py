"""What an operator declares before a rollout: tracks, weight steps, promotion, watch, patience."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from moe_serve.errors import UsageError
from moe_serve.rollout.weights import ALL, NO_CANARY_TRAFFIC, Track, Weights


class Owner(StrEnum):
    """`dedicated`: the route is ours alone. `shared`: it has other rules, or other writers."""

    DEDICATED = "dedicated"
    SHARED = "shared"


class Need(StrEnum):
    """What the judge must say before a step is left; an alarm rolls back at any time."""

    NO_ALARM = "no_alarm"
    PROMOTE = "promote"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackPlan:
    """One release: its Service, the value of its pods' track label, and its size in the rollout."""

    service: str
    label: str
    port: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What a dedicated route hangs on, and which requests it takes."""

    name: str
    namespace: str | None = None
    section: str | None = None
    hostnames: tuple[str, ...] = ()
    path: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePlan:
    """`gateway` for a dedicated route; `rule`, the index of ours, for a shared one."""

    name: str
    owner: Owner = Owner.DEDICATED
    gateway: Gateway | None = None
    rule: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Weights, and what must hold before the next: so long in force, and the judge's word."""

    weights: Weights
    hold_seconds: float
    need: Need = Need.NO_ALARM


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """The canary grows to `replicas`, stable shrinks to `warm_replicas`; the weights follow."""

    replicas: int
    warm_replicas: int
    canary_weights: tuple[int, ...] = (25, 50, 75, ALL)
    deadline_seconds: float = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """`pods_for_all_traffic`: so many ready pods carry everything, by the operator's load test.

    `max_utilisation` is how full pods may be by the measured load, where there is one.
    """

    pods_for_all_traffic: int
    gpus_per_pod: int = 1
    gpus: int | None = None
    max_utilisation: float = 0.8
    startup_seconds: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long something may be wrong before a person is asked."""

    deadline_seconds: float = 24 * 3600.0
    blind_seconds: float = 900.0
    invalid_seconds: float = 1800.0
    unplaceable_seconds: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """A rollout, complete. Its digest is written down at the start and may not change after."""

    name: str
    route: RoutePlan
    tracks: Mapping[Track, TrackPlan]
    steps: tuple[Step, ...]
    promotion: Promotion
    capacity: Capacity
    watch_seconds: float = 24 * 3600.0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Refuse what could not be carried out, or would promote without proof."""
        for check in (_tracks, _steps, _shares, _growth, _placement):
            check(self)

    @property
    def baseline(self) -> bool:
        """A fresh baseline track is there."""
        return Track.BASELINE in self.tracks

    @property
    def weight_steps(self) -> tuple[Weights, ...]:
        """All weights that this plan ever asks for, in order: dark, the steps', the promotion's."""
        return (
            NO_CANARY_TRAFFIC,
            *(step.weights for step in self.steps),
            *(
                Weights(stable=ALL - weight, canary=weight)
                for weight in self.promotion.canary_weights
            ),
        )

    @property
    def digest(self) -> str:
        """Equal for equal plans only."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def pods(self) -> int:
        """All tracks' pods while the canary is judged."""
        return sum(track.replicas for track in self.tracks.values())


def _tracks(plan: RolloutPlan) -> None:
    for track in (Track.STABLE, Track.CANARY):
        if track not in plan.tracks:
            raise UsageError(f"arms: there is no {track}")
    services = [track.service for track in plan.tracks.values()]
    labels = [track.label for track in plan.tracks.values()]
    for kind, names in (("service", services), ("label", labels)):
        if len(set(names)) < len(names):
            raise UsageError(f"arms: two have the same {kind}: {', '.join(names)}")
    if plan.route.owner is Owner.DEDICATED and plan.route.gateway is None:
        raise UsageError("route.gateway: a dedicated route needs the Gateway that it hangs on")
    if plan.baseline and plan.tracks[Track.BASELINE].replicas != plan.tracks[Track.CANARY].replicas:
        raise UsageError("arms.baseline.replicas: must be the canary's, or the arms are not alike")


def _steps(plan: RolloutPlan) -> None:
    if not plan.steps:
        raise UsageError("steps: at least one is needed")
    last = 0
    for number, step in enumerate(plan.steps):
        place, weights = f"steps.{number}", step.weights
        if weights.canary < max(1, last):
            raise UsageError(f"{place}.canary: {weights.canary} is below what came before")
        if weights.baseline != (weights.canary if plan.baseline else 0):
            raise UsageError(
                f"{place}.baseline: {weights.baseline}; compared arms get equal weights, and "
                "without a baseline arm there is none"
            )
        last = weights.canary
    if plan.steps[-1].need is not Need.PROMOTE:
        raise UsageError("steps: the last must need the judge's word: needs: promote")


def _growth(plan: RolloutPlan) -> None:
    weights = plan.promotion.canary_weights
    if not weights or weights[-1] != ALL or list(weights) != sorted(set(weights)):
        raise UsageError("promotion.weights: they must rise, and end with 100")
    if weights[0] <= plan.steps[-1].weights.canary:
        raise UsageError(
            f"promotion.weights: {weights[0]} is not above the last step's "
            f"{plan.steps[-1].weights.canary}"
        )
    if plan.promotion.replicas < plan.capacity.pods_for_all_traffic:
        raise UsageError(
            f"promotion.replicas: {plan.promotion.replicas} cannot carry all traffic, which "
            f"takes {plan.capacity.pods_for_all_traffic} (capacity.pods_for_all_traffic)"
        )


def _placement(plan: RolloutPlan) -> None:
    capacity = plan.capacity
    if plan.tracks[Track.STABLE].replicas < capacity.pods_for_all_traffic:
        raise UsageError(
            f"arms.stable.replicas: {plan.tracks[Track.STABLE].replicas} cannot carry all traffic, "
            f"which takes {capacity.pods_for_all_traffic}: a rollback needs that"
        )
    if capacity.gpus is None:
        return
    grown = plan.promotion.replicas + plan.promotion.warm_replicas
    for what, pods in (("the arms", plan.pods), ("the promotion", grown)):
        missing = pods * capacity.gpus_per_pod - capacity.gpus
        if missing > 0:
            raise UsageError(
                f"cannot be placed: {what} need {pods * capacity.gpus_per_pod} GPUs, there are "
                f"{capacity.gpus}: {missing} missing; lower arms.stable.replicas or "
                "promotion.warm_replicas in the same commit"
            )


def _shares(plan: RolloutPlan) -> None:
    for number, step in enumerate(plan.steps):
        for track in (Track.BASELINE, Track.CANARY):
            weight = step.weights.of(track)
            if not weight:
                continue
            ready = plan.tracks[track].replicas
            if not carries(plan.capacity, weight=weight, ready=ready, of=plan.pods):
                needed = math.ceil(weight * plan.capacity.pods_for_all_traffic / ALL)
                raise UsageError(
                    f"steps.{number}.{track}: {weight} % for {ready} of {plan.pods} pods, whose "
                    f"share is {ALL * ready // plan.pods} %; {weight} % of the traffic takes "
                    f"{needed} pods"
                )


def carries(
    capacity: Capacity, *, weight: int, ready: int, of: int, load_pods: float | None = None
) -> bool:
    """An track of `ready` pods among `of` may get the weight.

    Its share of the ready pods always; more if the measured load (in pods kept fully busy) leaves
    room, or, where none is measured, if the load test's figure does.
    """
    if weight * of <= ALL * ready:
        return weight == 0 or ready > 0
    if load_pods is None:
        return weight * capacity.pods_for_all_traffic <= ALL * ready
    return weight / ALL * load_pods <= ready * capacity.max_utilisation
