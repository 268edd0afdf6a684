"""Which slot a call goes to: captured or eager, piece or whole, half of a step or all of it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from moe_serve.telemetry import layout
from moe_serve.telemetry.proof import InstrumentationState
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    ModelRole,
    Rank,
    RecordWriter,
    SlotKind,
    read_record,
)
from moe_serve.vllm_plugin.markers import sampler as sampler_module
from moe_serve.vllm_plugin.markers.layers import Sampled, running
from moe_serve.vllm_plugin.markers.sampler import Sampler
from moe_serve.vllm_plugin.markers.slot import Cost, Slot

FIRST = Sampled(number=0, model=ModelRole.TARGET, first=True)
LAST = Sampled(number=35, model=ModelRole.TARGET, last=True)


class Markers:
    """Notes what is asked of a device's markers."""

    name, path = "cuda", "mapped"

    def __init__(self, pair_seconds: float = 1e-6) -> None:
        self.pair_seconds = pair_seconds
        self.owned: list[int] = []
        self.starts: list[tuple[Any, ...]] = []
        self.stops: list[tuple[Any, ...]] = []
        self.gates: list[bool] = []

    def owns(self, slot: Slot) -> None:
        self.owned.append(slot.number)

    def start(self, slot: Slot, window: Slot | None) -> None:
        self.starts.append((_key(slot), _key(window)))

    def stop(self, slot: Slot, rows: int, window: Slot | None) -> None:
        self.stops.append((_key(slot), rows, _key(window)))

    def gate(self, *, is_open: bool) -> None:
        self.gates.append(is_open)

    def calibrate(self) -> Cost:
        return Cost(pair_seconds=self.pair_seconds, bias_seconds=0.0)

    def close(self) -> None:
        """Nothing to let go of."""


def _key(slot: Slot | None) -> tuple[Any, ...] | None:
    if slot is None:
        return None
    key = layout.unpack_key(slot.word)
    return key.kind, key.mode, key.phase, key.bucket, key.layer, key.ubatch


class Setting(SimpleNamespace):
    """A sampler, what it drives, and whether the stream is being captured."""

    def call(self, layer: Sampled, rows: int) -> bool:
        token = running.set(layer)
        marked = self.sampler.begin(rows)
        running.reset(token)
        if marked:
            self.sampler.end(marked)
        return marked is not None

    def step(self, phase: BatchPhase, *calls: tuple[Sampled, int]) -> None:
        self.sampler.serving(phase)
        for layer, rows in calls:
            self.call(layer, rows)
        self.sampler.served()


Make = Callable[..., Setting]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    writer = RecordWriter(tmp_path, Rank())

    def build(*, decode_graphs: bool = True, budget: float = 1.0, **cost: float) -> Setting:
        setting = Setting(
            markers=Markers(**cost), writer=writer, capturing=False, said=[], now=0.0,
            path=tmp_path / Rank().file_name,
        )  # fmt: skip
        setting.sampler = Sampler(
            writer,
            setting.markers,
            pairs=2,
            decode_graphs=lambda: decode_graphs,
            budget=budget,
            on_change=setting.said.append,
            capturing=lambda: setting.capturing,
            clock=lambda: setting.now,
        )
        return setting

    yield build
    writer.close()


def test_a_captured_call_is_the_graphs_whatever_step_runs(make: Make) -> None:
    here = make()
    here.capturing = True
    here.call(FIRST, 64)
    here.call(LAST, 64)

    full = (GraphMode.FULL, BatchPhase.DECODE, 64)
    window = (SlotKind.WINDOW, *full, None, 0)
    assert here.markers.starts == [
        ((SlotKind.KERNEL, *full, 0, 0), window),
        ((SlotKind.KERNEL, *full, 35, 0), None),
    ]
    assert here.markers.stops == [
        ((SlotKind.KERNEL, *full, 0, 0), 64, None),
        ((SlotKind.KERNEL, *full, 35, 0), 64, window),
    ]
    assert here.markers.owned == [2, 3, 4]  # two are reserved for the schedule
    assert here.markers.gates == []


def test_a_full_graph_that_serves_every_step_has_no_phase(make: Make) -> None:
    here = make(decode_graphs=False)
    here.capturing = True
    here.call(FIRST, 8)

    assert here.markers.stops[0][0][:3] == (SlotKind.KERNEL, GraphMode.FULL, BatchPhase.ANY)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("PIECEWISE", GraphMode.PIECEWISE), ("NONE", GraphMode.FULL), ("FULL", GraphMode.FULL)],
)
def test_vllms_context_only_tells_pieces_apart(
    name: str, mode: GraphMode, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Any = ModuleType("vllm.forward_context")
    context.is_forward_context_available = lambda: True
    context.get_forward_context = lambda: SimpleNamespace(
        cudagraph_runtime_mode=SimpleNamespace(name=name)
    )
    monkeypatch.setitem(sys.modules, context.__name__, context)
    here = make()
    here.capturing = True
    here.call(FIRST, 8)

    assert here.markers.stops[0][0][1] is mode


def test_an_eager_call_counts_in_a_served_step_alone_and_in_a_bounded_bucket(make: Make) -> None:
    here = make()
    assert not here.call(FIRST, 8)  # profiling
    here.step(BatchPhase.MIXED, (FIRST, 65), (LAST, 10_000))
    here.sampler.serving(None)
    assert not here.call(FIRST, 8)  # a dummy batch

    assert [stop[0][:4] for stop in here.markers.stops] == [
        (SlotKind.KERNEL, GraphMode.EAGER, BatchPhase.MIXED, 128),
        (SlotKind.KERNEL, GraphMode.EAGER, BatchPhase.MIXED, 0),
    ]
    assert here.markers.gates == [True, False]


def test_the_halves_of_an_overlapped_step_have_slots_of_their_own_and_no_window(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ubatching: Any = ModuleType("vllm.v1.worker.ubatching")
    ubatching.dbo_enabled = lambda: True
    halves = iter((0, 1))
    ubatching.dbo_current_ubatch_id = lambda: next(halves)
    monkeypatch.setitem(sys.modules, ubatching.__name__, ubatching)
    here = make()
    here.capturing = True
    here.call(FIRST, 32)
    here.call(FIRST, 32)

    assert [start[0][5] for start in here.markers.starts] == [1, 2]
    assert [start[1] for start in here.markers.starts] == [None, None]


def test_a_capture_after_served_steps_is_a_new_generation(make: Make) -> None:
    here = make()
    here.capturing = True
    here.call(FIRST, 8)
    first = read_record(here.path)
    here.capturing = False
    here.step(BatchPhase.DECODE, (FIRST, 8))
    here.capturing = True
    here.call(FIRST, 8)
    here.call(LAST, 8)
    second = read_record(here.path)

    assert (first.recaptures, second.recaptures) == (0, 1)
    assert second.generation == first.generation + 1


def test_calls_beyond_the_records_capacity_are_dropped_and_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moe_serve.telemetry.record.CAPACITY", 4)
    here = make()
    here.capturing = True
    assert here.call(FIRST, 8)
    assert not here.call(FIRST, 16)
    assert not here.call(FIRST, 16)

    assert read_record(here.path).slots_dropped == 1


def test_the_overhead_is_of_the_median_time_between_steps(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_module, "JUDGED_STEPS", 3)
    here = make(pair_seconds=1e-6, budget=0.003)
    for gap in (0.0, 0.002, 0.002, 100.0):  # two steps of 2 ms, then nobody came
        here.now += gap
        here.step(BatchPhase.DECODE)
    # Two pairs, each twice as dear as alone.
    assert here.sampler.overhead == pytest.approx(4e-6 / 2e-3)
    assert (here.sampler.state, here.said) == (InstrumentationState.ON, [None])

    for _ in range(3):
        here.now += 0.001
        here.step(BatchPhase.DECODE)
    assert here.sampler.state is InstrumentationState.OVER_BUDGET
    assert "0.40%" in here.said[-1]
    assert here.markers.gates[-1] is False
    assert not here.call(FIRST, 8)
