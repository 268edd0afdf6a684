"""Put a controller together: on the cluster, or as its shadow."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_serve.controller.loop import Controller
from moe_serve.controller.run import Runner, Thread
from moe_serve.controller.shadow import ShadowLeadership, ShadowRoute, ShadowStore
from moe_serve.controller.warnings import FailureWarnings
from moe_serve.controller.web import Status
from moe_serve.kubernetes.api import Api
from moe_serve.kubernetes.events import Events
from moe_serve.kubernetes.lease import Leadership
from moe_serve.kubernetes.route import Route
from moe_serve.kubernetes.store import Store
from moe_serve.kubernetes.tracks import watch_tracks
from moe_serve.rollout.plan import RolloutPlan
from moe_serve.rollout.ports import Judge, Notifier, TrafficLoad


class JudgeThread(Judge, Thread, Protocol):
    """A judge with a thread of its own."""


def state_name(plan: RolloutPlan) -> str:
    """Of a plan's ConfigMap and Lease."""
    return f"{plan.name}-rollout"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """How a controller is to run."""

    plan: RolloutPlan
    active: bool
    every: float
    identity: str


def assemble(
    api: Api,
    settings: ControllerSettings,
    judge: Callable[[Callable[[], None]], JudgeThread],
    notifiers: Sequence[Notifier],
    threads: Sequence[Thread],
    load: TrafficLoad | None = None,
    audit_fault: Callable[[], str] = str,
) -> tuple[Runner, list[Thread]]:
    """The runner, and what runs beside it. `judge` is given what wakes the loop."""
    plan, name = settings.plan, state_name(settings.plan)
    runner: list[Runner] = []

    def wake() -> None:
        if runner:
            runner[0].wake.set()

    tracks, judge_result = watch_tracks(api, plan, wake), judge(wake)
    events = Events(api, name)
    controller = Controller(
        plan=plan,
        route=Route(api, plan) if settings.active else ShadowRoute(Route(api, plan)),
        tracks=tracks,
        store=Store(api, name) if settings.active else ShadowStore(),
        leadership=Leadership(api, name, settings.identity, time.monotonic)
        if settings.active
        else ShadowLeadership(),
        judge=judge_result,
        load=load,
        notifiers=(events, *notifiers) if settings.active else notifiers,
        warnings=FailureWarnings(sink=events if settings.active else None),
        audit_fault=audit_fault,
    )
    status = Status(
        plan=plan, active=settings.active, stale_seconds=3 * settings.every + 30, clock=time.time
    )
    runner.append(Runner(controller=controller, status=status, every=settings.every))
    return runner[0], [tracks.pods, tracks.slices, judge_result, *threads]
