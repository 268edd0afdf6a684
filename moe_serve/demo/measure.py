"""Measure two loaded servers in blocks, swapping their cores from one block to the next."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moe_serve.canary.analysis.series import (
    Cell,
    CellKind,
    PairedBlock,
    Placement,
    delta,
    paired_block,
)
from moe_serve.demo.load import Load
from moe_serve.demo.servers import Server
from moe_serve.errors import DemoError
from moe_serve.telemetry.record import Kind, Phase, SlotKey, read_records

_CELLS = {Kind.KERNEL: CellKind.KERNEL, Kind.STEP: CellKind.STEP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure, fixed before the start.

    A cell counts in a block in which each arm ran it `min_count` times.
    """

    blocks: int
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
    stable: Server,
    canary: Server,
    *,
    plan: Plan,
    cores: tuple[int, int],
    prompts: Sequence[Sequence[int]],
    after_block: Callable[[Sequence[PairedBlock], Load], None],
) -> tuple[PairedBlock, ...]:
    """Load both arms without a pause and read them at the edges of each block.

    Raises:
        DemoError: an arm ended, or stopped answering.
    """
    load = Load(urls=(stable.url, canary.url), prompts=prompts)
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
            after_block(blocks, load)
        return tuple(blocks)
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)


def _placed(stable: Server, canary: Server, placement: Placement) -> tuple[Server, Server]:
    return (stable, canary) if placement is Placement.AB else (canary, stable)


async def _pause(seconds: float, loading: "asyncio.Task[None]") -> None:
    """Wait; a load that ended on the way has failed, and says why."""
    done, _ = await asyncio.wait([loading], timeout=seconds)
    if done:
        error = loading.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error if error else DemoError("the load ended by itself")


def read(server: Server) -> Reading:
    """The arm's totals now: pure decode batches alone, by exact batch size.

    Raises:
        DemoError: the arm has no record, or more than one.
    """
    records = read_records(server.records)
    if len(records) != 1:
        raise DemoError(
            f"{server.arm.name}: {len(records)} records in {server.records}, one was expected; "
            f"its log is {server.log}"
        )
    record = records[0]
    return Reading(
        generation=record.generation,
        totals={
            _cell(key): (total.count, total.seconds)
            for key, total in record.totals.items()
            if key.phase is Phase.DECODE and key.kind in _CELLS
        },
    )


def _cell(key: SlotKey) -> Cell:
    return Cell(kind=_CELLS[key.kind], layer=key.layer, bucket=key.bucket)
