"""The judge service whose thread has ended: unhealthy, and no gate stays open on what was."""

import asyncio

import httpx

from moe_serve.judge.app import make_app
from moe_serve.judge.watch import ComparisonWatch
from tests.judge.serving import NOW, RULES, Memory, Served
from tests.testing.histories import START
from tests.testing.verdicts import SAME


def test_thread_that_ended_fails_the_health_check() -> None:
    watch = ComparisonWatch(
        source=Memory(), analysis_plan=RULES, quality=lambda: SAME, started=START
    )
    failure: list[str] = []
    app = make_app(watch, clock=lambda: NOW, worker_failure=lambda: failure[0] if failure else None)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://judge") as client:
            return await client.get("/healthz")

    assert asyncio.run(ask()).status_code == httpx.codes.OK
    failure.append("judge ended: KeyError: 'x'")
    found = asyncio.run(ask())
    assert (found.status_code, found.json()["detail"]) == (503, failure[0])


def test_verdict_is_stale_after_the_blind_time_though_nobody_judges_again(served: Served) -> None:
    moment = NOW
    watch, client = served(Memory(), now=lambda: moment)
    watch.judge()
    moment += RULES.policy.blind_seconds
    assert client.get("/gate/promote").status_code == 200
    moment += 1
    body = client.get("/v1/verdict").json()
    assert (body["verdict"], body["theta"]) == ("KEEP_GOING", None)
    assert "judged last 901 s ago" in body["fault"]
    assert client.get("/gate/promote").status_code == 409
    assert client.get("/readyz").status_code == 503
