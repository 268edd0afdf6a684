"""The plan file of a rollout: YAML, checked key by key, turned into what the controller takes."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moe_serve.config.strict_yaml import first_fault, read
from moe_serve.errors import UsageError
from moe_serve.rollout.plan import (
    Capacity,
    Gateway,
    Need,
    Owner,
    Patience,
    Promotion,
    RolloutPlan,
    RoutePlan,
    Step,
    TrackPlan,
)
from moe_serve.rollout.weights import ALL, Track, Weights

# As Kubernetes names Services; one below its 63 leaves room for suffixes of ours.
_Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=50)]
_Percent = Annotated[int, Field(ge=0, le=ALL)]
_Pods = Annotated[int, Field(ge=1, le=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Gateway(_Part):
    name: _Name
    namespace: _Name | None = None
    section: _Name | None = Field(None, description="the Gateway's listener")


class _Route(_Part):
    name: _Name | None = Field(None, description="default: the plan's name")
    owner: Owner = Owner.DEDICATED
    gateway: _Gateway | None = None
    hostnames: tuple[str, ...] = ()
    path: str = Field("/", pattern="^/")
    rule: int = Field(0, ge=0, le=15, description="of a shared route: the index of our rule")


class _Arm(_Part):
    service: _Name
    label: str | None = Field(None, description="value of moe-serve.io/arm; default: the service")
    port: int = Field(8000, ge=1, le=65535)
    replicas: _Pods


class _Arms(_Part):
    stable: _Arm
    baseline: _Arm | None = Field(
        None, description="absent: the canary is held against stable, which is weaker evidence"
    )
    canary: _Arm


class _Step(_Part):
    canary: _Percent
    baseline: _Percent = 0
    hold_minutes: float = Field(ge=0, le=7 * 24 * 60)
    needs: Need = Need.NO_ALARM


class _Promotion(_Part):
    replicas: _Pods
    warm_replicas: int = Field(ge=0, le=10_000, description="of stable, through the watch")
    weights: tuple[_Percent, ...] = (25, 50, 75, ALL)
    deadline_hours: float = Field(6, gt=0, le=24 * 14)


class _Capacity(_Part):
    pods_for_all_traffic: _Pods = Field(description="so many pods carry everything, as measured")
    gpus_per_pod: int = Field(1, ge=1, le=64)
    gpus: int | None = Field(None, ge=1, description="all that this model may use")
    max_utilisation: float = Field(0.8, gt=0, le=1)
    startup_minutes: float = Field(60, gt=0, le=24 * 60, description="until a new pod is ready")


class _Patience(_Part):
    deadline_hours: float = Field(24, gt=0, le=24 * 14)
    blind_minutes: float = Field(15, gt=0, le=24 * 60)
    invalid_minutes: float = Field(30, gt=0, le=24 * 60)
    unplaceable_minutes: float = Field(10, gt=0, le=24 * 60)


class _Document(_Part):
    """A rollout's plan."""

    name: _Name
    route: _Route
    arms: _Arms
    steps: tuple[_Step, ...] = Field(min_length=1, max_length=20)
    promotion: _Promotion
    capacity: _Capacity
    watch_hours: float = Field(24, ge=0, le=24 * 14)
    patience: _Patience = _Patience()


def load(path: Path) -> RolloutPlan:
    """The plan in a file.

    Raises:
        UsageError: it cannot be read, or holds what is not allowed (with the key's path).
    """
    return parse(read(path, "--rollout-file"), f"--rollout-file {path}")


def parse(document: Any, name: str) -> RolloutPlan:
    """The plan in a document as YAML gives it; `name` is for messages.

    Raises:
        UsageError: as `load`.
    """
    try:
        found = _Document.model_validate(document)
    except ValidationError as error:
        raise UsageError(f"{name}: {first_fault(error, _Document)}") from error
    try:
        return _plan(found)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _plan(found: _Document) -> RolloutPlan:
    tracks = {Track(name): part for name, part in found.arms if part is not None}
    return RolloutPlan(
        name=found.name,
        route=_route(found),
        tracks={
            track: TrackPlan(
                service=part.service,
                label=part.label or part.service,
                port=part.port,
                replicas=part.replicas,
            )
            for track, part in tracks.items()
        },
        steps=tuple(_step(number, step) for number, step in enumerate(found.steps)),
        promotion=Promotion(
            replicas=found.promotion.replicas,
            warm_replicas=found.promotion.warm_replicas,
            canary_weights=found.promotion.weights,
            deadline_seconds=found.promotion.deadline_hours * 3600,
        ),
        capacity=Capacity(
            pods_for_all_traffic=found.capacity.pods_for_all_traffic,
            gpus_per_pod=found.capacity.gpus_per_pod,
            gpus=found.capacity.gpus,
            max_utilisation=found.capacity.max_utilisation,
            startup_seconds=found.capacity.startup_minutes * 60,
        ),
        watch_seconds=found.watch_hours * 3600,
        patience=Patience(
            deadline_seconds=found.patience.deadline_hours * 3600,
            blind_seconds=found.patience.blind_minutes * 60,
            invalid_seconds=found.patience.invalid_minutes * 60,
            unplaceable_seconds=found.patience.unplaceable_minutes * 60,
        ),
    )


def _route(found: _Document) -> RoutePlan:
    route = found.route
    gateway = None
    if route.gateway is not None:
        named = route.gateway.model_dump()
        gateway = Gateway(**named, hostnames=route.hostnames, path=route.path)
    return RoutePlan(
        name=route.name or found.name, owner=route.owner, gateway=gateway, rule=route.rule
    )


def _step(number: int, step: _Step) -> Step:
    stable = ALL - step.canary - step.baseline
    if stable < 0:
        raise UsageError(
            f"steps.{number}: canary {step.canary} and baseline {step.baseline} are above 100"
        )
    return Step(
        weights=Weights(stable=stable, baseline=step.baseline, canary=step.canary),
        hold_seconds=step.hold_minutes * 60,
        need=step.needs,
    )
