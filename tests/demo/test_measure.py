"""Blocks from two arms' records, with the load and the clock in the test's hands."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moe_serve_demo import measure
from moe_serve_demo.errors import DemoError
from moe_serve_demo.exporter import Scrape, parse
from moe_serve_demo.load import DemoLoad, prompts
from moe_serve_demo.scenarios import SCENARIOS

from moe_serve.analysis.series import Cell, CellKind, PairedBlock, Placement
from moe_serve.exporter.collector import Collector
from moe_serve.exporter.exposition import render
from moe_serve.exporter.sources import Sources
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind
from tests.exporter import workers

PLAN = measure.MeasurementPlan(
    blocks=3, first_look=2, block_seconds=0.01, settle_seconds=0.0, warm_up_seconds=0.0, min_count=1
)
STEP = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=8)
KERNEL = SlotKey(
    kind=SlotKind.KERNEL, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=8, layer=0
)
MIXED = SlotKey(kind=SlotKind.STEP, mode=GraphMode.EAGER, phase=BatchPhase.MIXED, bucket=8)


class DemoArm(SimpleNamespace):
    """As much of a server as a measurement needs; every pin is one step more."""

    def __init__(self, folder: Path, nanoseconds: int) -> None:
        super().__init__(url="", records=folder, pins=[], log="log", nanoseconds=nanoseconds)
        self.arm = SimpleNamespace(name=folder.name)
        self.writer = RecordWriter(folder, Rank())
        self.exporter = self
        self._collector = Collector(Sources(folder, ttl=60))

    def scrape(self) -> Scrape:
        """What the real exporter tells of the record."""
        return parse(render(self._collector.collect(), openmetrics=False).decode())

    def require_alive(self) -> None:
        """It always is."""

    def pin(self, core: int) -> None:
        """Remember the core."""
        self.pins.append(core)


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    pair = DemoArm(tmp_path / "stable", 2_000_000), DemoArm(tmp_path / "canary", 1_000_000)

    async def serve(_load: DemoLoad) -> None:
        while True:
            for arm in pair:
                arm.writer.add(STEP, arm.nanoseconds)
                arm.writer.add(MIXED, 1)
            await asyncio.sleep(0)

    monkeypatch.setattr(DemoLoad, "run", serve)
    return pair


def run(pair: tuple[Any, Any]) -> tuple[PairedBlock, ...]:
    return asyncio.run(
        measure.measure(
            *pair, plan=PLAN, cores=(4, 5), prompts=(), decided=lambda _blocks, _load: False
        )
    )


def test_each_block_holds_what_grew_in_it_and_the_arms_swap_cores(arms: tuple[Any, Any]) -> None:
    blocks = run(arms)

    assert [block.placement for block in blocks] == [Placement.AB, Placement.BA, Placement.AB]
    assert (arms[0].pins, arms[1].pins) == ([4, 5, 4], [5, 4, 5])
    cell = Cell(kind=CellKind.STEP, layer=None, bucket=8)
    for block in blocks:
        assert block.stable is not None
        assert block.canary is not None
        assert set(block.stable.totals) == {cell}  # mixed steps are not compared
        stable, canary = block.stable.totals[cell], block.canary.totals[cell]
        assert stable.seconds / stable.count == pytest.approx(0.002)
        assert canary.seconds / canary.count == pytest.approx(0.001)


def test_a_load_that_fails_ends_the_measurement_with_its_reason(
    arms: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_load: DemoLoad) -> None:
        raise ExceptionGroup("lanes", [DemoError("canary: no answer")])

    monkeypatch.setattr(DemoLoad, "run", fail)

    with pytest.raises(DemoError, match="canary: no answer"):
        run(arms)


def test_an_arm_without_a_record_is_named(arms: tuple[Any, Any]) -> None:
    (arms[1].records / "dp0-pp0-tp0.record").unlink()

    with pytest.raises(DemoError, match=r"canary: its exporter tells of 0 living workers"):
        run(arms)


def test_what_an_arm_exports_is_told_without_a_number_where_there_is_none(
    arms: tuple[Any, Any],
) -> None:
    stable, canary = arms
    stable.writer.add(KERNEL, 2_000_000, tokens=8)
    stable.writer.prove(workers.proof(policy="zero"))

    assert measure.exported(stable) == (
        "policy zero, 8.2% of the bytes are padding, 4,000 kernel tokens/s"
    )
    assert measure.exported(canary) == "policy , unknown padding waste, no timed call"


def test_prompts_are_the_same_for_the_same_seed() -> None:
    assert prompts(4, vocabulary=range(3, 9), seed=1) == prompts(4, vocabulary=range(3, 9), seed=1)
    assert prompts(4, vocabulary=range(3, 9), seed=1) != prompts(4, vocabulary=range(3, 9), seed=2)


def test_every_chapter_differs_in_its_pads_alone() -> None:
    for chapters in SCENARIOS.values():
        for chapter in chapters:
            assert chapter.stable.policy == "zero"
            assert chapter.expected
