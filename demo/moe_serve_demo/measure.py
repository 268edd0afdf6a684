"""Measure two loaded servers in blocks, swapping their cores from one block to the next."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_serve.analysis.series import (
    Cell,
    CellKind,
    PairedBlock,
    Placement,
    delta,
    paired_block,
)
from moe_serve.telemetry.slots import OVERFLOW
from moe_serve_demo.errors import DemoError
from moe_serve_demo.exporter import Scrape
from moe_serve_demo.load import DemoLoad
from moe_serve_demo.servers import DemoServer

DECODE = "decode"
# What counts, what is summed, and of which series.
_CELLS: Mapping[CellKind, tuple[str, str, Mapping[str, str]]] = {
    CellKind.KERNEL: (
        "kernel_invocations_total",
        "kernel_seconds_total",
        {"phase": DECODE, "role": "target"},
    ),
    CellKind.STEP: ("steps_timed_total", "step_seconds_total", {"phase": DECODE}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPlan:
    """How long to measure at most, fixed before the start; `first_look` pairs of blocks at least.

    A cell counts in a block in which each arm ran it `min_count` times.
    """

    blocks: int
    first_look: int
    block_seconds: float
    settle_seconds: float
    warm_up_seconds: float
    min_count: int

    @property
    def seconds(self) -> float:
        """The whole measurement."""
        return self.warm_up_seconds + self.blocks * (self.settle_seconds + self.block_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One arm's cumulative totals at one moment."""

    generation: int
    totals: Mapping[Cell, tuple[int, float]]


async def measure(
    stable: DemoServer,
    canary: DemoServer,
    *,
    plan: MeasurementPlan,
    cores: tuple[int, int],
    prompts: Sequence[Sequence[int]],
    decided: Callable[[Sequence[PairedBlock], DemoLoad], bool],
) -> tuple[PairedBlock, ...]:
    """Load both arms without a pause and read them at the edges of each block.

    It ends when `decided`, asked after each block, says so, or with the plan.

    Raises:
        DemoError: an arm ended, or stopped answering.
    """
    load = DemoLoad(urls=(stable.url, canary.url), prompts=prompts)
    loading = asyncio.create_task(load.run())
    try:
        begun, blocks = time.monotonic(), []
        await _pause(plan.warm_up_seconds, loading)
        for index in range(plan.blocks):
            placement = (Placement.AB, Placement.BA)[index % 2]
            for server, core in zip(_placed(stable, canary, placement), cores, strict=True):
                server.require_alive()
                server.pin(core)
            await _pause(plan.settle_seconds, loading)
            start = time.monotonic() - begun
            before = read(stable), read(canary)
            await _pause(plan.block_seconds, loading)
            after = read(stable), read(canary)
            blocks.append(
                paired_block(
                    index=index,
                    start_seconds=start,
                    placement=placement,
                    stable=delta(before[0], after[0]),
                    canary=delta(before[1], after[1]),
                )
            )
            if decided(blocks, load):
                break
        return tuple(blocks)
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)


def _placed(
    stable: DemoServer, canary: DemoServer, placement: Placement
) -> tuple[DemoServer, DemoServer]:
    return (stable, canary) if placement is Placement.AB else (canary, stable)


async def _pause(seconds: float, loading: "asyncio.Task[None]") -> None:
    """Wait; a load that ended on the way has failed, and says why."""
    done, _ = await asyncio.wait([loading], timeout=seconds)
    if done:
        error = loading.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error if error else DemoError("the load ended by itself")


def read(server: DemoServer) -> Reading:
    """The arm's totals now, from its exporter: pure decode batches alone, by exact batch size.

    Raises:
        DemoError: it tells of no worker, or of more than one.
    """
    scrape = server.exporter.scrape()
    living = scrape.total("source_up")
    if living != 1:
        raise DemoError(
            f"{server.arm.name}: its exporter tells of {living or 0:.0f} living workers in "
            f"{server.records}, one was expected; its log is {server.log}"
        )
    life = scrape.total("source_start_timestamp_seconds"), scrape.total("graph_recaptures")
    return Reading(generation=hash(life), totals=dict(_totals(scrape)))


def _totals(scrape: Scrape) -> Iterator[tuple[Cell, tuple[int, float]]]:
    for kind, (count, seconds, labels) in _CELLS.items():
        spent = {_cell(kind, found): value for found, value in scrape.series(seconds, **labels)}
        for found, value in scrape.series(count, **labels):
            cell = _cell(kind, found)
            yield cell, (round(value), spent.get(cell, 0.0))


def _cell(kind: CellKind, labels: Mapping[str, str]) -> Cell:
    layer = int(labels["layer"]) if kind is CellKind.KERNEL else None
    bucket = labels["bucket"]
    return Cell(kind=kind, layer=layer, bucket=OVERFLOW if bucket == "+Inf" else int(bucket))


def exported(server: DemoServer) -> str:
    """What an operator sees of the arm: its policy, what padding wastes, how fast the kernel is."""
    scrape = server.exporter.scrape()
    rows = scrape.total("kernel_tokens_total", phase=DECODE)
    seconds = scrape.total("kernel_seconds_total", phase=DECODE)
    rate = f"{rows / seconds:,.0f} kernel tokens/s" if rows and seconds else "no timed call"
    waste = scrape.total("padding_waste_ratio", dim="bytes")
    wasted = "unknown padding waste" if waste is None else f"{waste:.1%} of the bytes are padding"
    return f"policy {scrape.label('config_info', 'policy')}, {wasted}, {rate}"
