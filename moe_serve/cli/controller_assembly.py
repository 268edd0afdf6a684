"""Put a controller together: on the cluster, or as its shadow."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_serve.controller.failpoints import Failpoint
from moe_serve.controller.loop import Controller
from moe_serve.controller.run import Runner, Thread
from moe_serve.controller.shadow import Alone, ShadowRoute, ShadowStore
from moe_serve.controller.web import Status
from moe_serve.kubernetes.api import Api
from moe_serve.kubernetes.arms import watch_arms
from moe_serve.kubernetes.events import Events
from moe_serve.kubernetes.lease import Leadership
from moe_serve.kubernetes.route import Route
from moe_serve.kubernetes.store import Store
from moe_serve.rollout.plan import Plan
from moe_serve.rollout.ports import Judge, Listener, Load


class JudgeThread(Judge, Thread, Protocol):
    """A judge with a thread of its own."""


def state_name(plan: Plan) -> str:
    """Of a plan's ConfigMap and Lease."""
    return f"{plan.name}-rollout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a controller is to run."""

    plan: Plan
    active: bool
    every: float
    me: str
    failpoint: Failpoint


def assemble(
    api: Api,
    wanted: Wanted,
    judge: Callable[[Callable[[], None]], JudgeThread],
    listeners: Sequence[Listener],
    threads: Sequence[Thread],
    load: Load | None = None,
) -> tuple[Runner, list[Thread]]:
    """The runner, and what runs beside it. `judge` is given what wakes the loop."""
    plan, name = wanted.plan, state_name(wanted.plan)
    runner: list[Runner] = []

    def wake() -> None:
        if runner:
            runner[0].wake.set()

    arms, word = watch_arms(api, plan, wake), judge(wake)
    events = Events(api, name)
    controller = Controller(
        plan=plan,
        route=Route(api, plan) if wanted.active else ShadowRoute(Route(api, plan)),
        arms=arms,
        store=Store(api, name) if wanted.active else ShadowStore(),
        leadership=Leadership(api, name, wanted.me, time.monotonic) if wanted.active else Alone(),
        judge=word,
        load=load,
        listeners=(events, *listeners) if wanted.active else listeners,
        alarm=events if wanted.active else None,
        failpoint=wanted.failpoint,
    )
    status = Status(
        plan=plan, active=wanted.active, stale_seconds=3 * wanted.every + 30, clock=time.time
    )
    runner.append(Runner(controller=controller, status=status, every=wanted.every))
    return runner[0], [arms.pods, arms.slices, word, *threads]
