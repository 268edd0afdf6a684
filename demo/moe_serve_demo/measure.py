"""Load two servers, swap their cores, and scrape their exporters at every swap.

A window of the policy is one placement of the arms on the two cores, a block is both placements:
so each arm spends half of every block on either core, and a core's own speed cancels.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_serve.analysis.history import History
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.sources.scraped import Scraper, Target
from moe_serve_demo.errors import DemoError

WARM_UP_SECONDS = 5.0
_PLACEMENTS = 2


class PinnedServer(Protocol):
    """As much of a server as a measurement needs."""

    def require_alive(self) -> None:
        """Raise `DemoError` if it has ended."""

    def pin(self, core: int) -> None:
        """Move it to one core."""


class Load(Protocol):
    """Requests to both arms, without an end."""

    async def run(self) -> None:
        """Send requests until cancelled; raise `DemoError` if an arm does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """Seconds since the epoch, and a pause of so many seconds."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


CLOCK = WallClock()


def scraper(stable: str, canary: str, *, clock: WallClock = CLOCK) -> Scraper:
    """The product's source over both arms' exporters, given by their addresses."""
    urls = {"stable": stable, "canary": canary}
    return Scraper(
        targets=[
            Target(arm=arm, pod=f"{arm}-0", url=f"{url}/metrics") for arm, url in urls.items()
        ],
        clock=clock.now,
    )


async def measure(
    servers: Sequence[PinnedServer],
    source: Scraper,
    load: Load,
    plan: AnalysisPlan,
    *,
    cores: Sequence[int],
    decided: Callable[[History], bool],
    clock: WallClock = CLOCK,
) -> None:
    """Scrape both arms under load until `decided` says so after a block, or up to the deadline.

    Args:
        servers: stable and canary, which run on `cores` in this order.
        source: the scraper, which has the samples afterwards.
        load: runs from the start to the end of the measurement.
        plan: the length of windows and blocks, and the number of blocks at most.
        cores: two cores, which the servers swap in the middle and at the end of every block.
        decided: called with the history after each block.
        clock: the time and its pauses.

    Raises:
        DemoError: a server ended, an exporter or an arm did not answer, or the blocks are not made
            of one window for each placement.
    """
    if plan.blocking.block_seconds != _PLACEMENTS * plan.blocking.window_seconds:
        raise DemoError("the demo's policy: a block needs two windows, one for each placement")
    loading = asyncio.create_task(load.run())
    try:
        await _pause(WARM_UP_SECONDS, loading, clock)
        await _scrape(source)
        # Later scrapes are due at whole windows after this, so none comes before its edge.
        begun = clock.now()
        for window in range(1, _PLACEMENTS * plan.interim_analyses.last + 1):
            due = begun + window * plan.blocking.window_seconds
            await _pause(max(0.0, due - clock.now()), loading, clock)
            await _scrape(source)
            swapped = window % _PLACEMENTS
            for server, core in zip(servers, cores[::-1] if swapped else cores, strict=True):
                server.require_alive()
                server.pin(core)
            if not swapped and decided(source.history(begun, due)):
                break
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)


async def _scrape(source: Scraper) -> None:
    await asyncio.to_thread(source.poll)
    if source.faults:
        url, fault = next(iter(source.faults.items()))
        raise DemoError(f"exporter {url}: {fault}")


async def _pause(seconds: float, loading: "asyncio.Task[None]", clock: WallClock) -> None:
    """Sleep; raise the load's error if the load ends meanwhile."""
    sleeping = asyncio.ensure_future(clock.sleep(seconds))
    await asyncio.wait([loading, sleeping], return_when=asyncio.FIRST_COMPLETED)
    sleeping.cancel()
    if loading.done():
        error = loading.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error if error else DemoError("the load ended by itself")
