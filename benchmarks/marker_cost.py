"""What markers cost, and whether they tell the truth: graphs of fused-MoE-like layers on a GPU.

    python benchmarks/marker_cost.py --output out.json

Every way of timing is a graph of its own over the same layers; they are replayed in turn, round by
round, and each is compared with the plain graph of its own round. Needs PyTorch and Triton alone.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from moe_serve.telemetry.layout import pack_key
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    Rank,
    RecordWriter,
    SlotKey,
    SlotKind,
    read_records,
)
from moe_serve.vllm_plugin.markers.device import DeviceMarkers, captured, clock_of, timed
from moe_serve.vllm_plugin.markers.slot import Slot

LAYERS, EXPERTS = 8, 32
HIDDEN = INTERMEDIATE = 3072
_ROUNDS, _REPLAYS = 60, 20


@triton.jit
def _empty():
    pass


@triton.jit
def _fenced(place, FENCE: tl.constexpr):  # noqa: N803
    """A stop marker's stores as a sequence lock has them: two system-wide fences in their midst."""
    lane = tl.arange(0, 32)
    at = place.to(tl.pointer_type(tl.int64))
    words = tl.load(at + lane)
    if FENCE:
        tl.inline_asm_elementwise(
            "fence.acq_rel.sys; mov.u32 $0, 0;", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.store(at + 32 + lane, words)
    if FENCE:
        tl.inline_asm_elementwise(
            "fence.acq_rel.sys; mov.u32 $0, 0;", "=r", [], dtype=tl.int32, is_pure=False, pack=1
        )
    tl.store(at + lane, words + 1)


class Layers:
    """Batched products of the size of one GPT-OSS MoE layer with 32 experts in bf16."""

    def __init__(self, device: torch.device) -> None:
        def weight(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=device, dtype=torch.bfloat16) * 0.02

        self.up = [weight(EXPERTS, HIDDEN, 2 * INTERMEDIATE) for _ in range(LAYERS)]
        self.down = [weight(EXPERTS, INTERMEDIATE, HIDDEN) for _ in range(LAYERS)]
        self.device = device

    def inputs(self, rows: int) -> torch.Tensor:
        """A batch [experts, rows, hidden]."""
        return torch.randn(EXPERTS, rows, HIDDEN, device=self.device, dtype=torch.bfloat16)

    def run(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """One layer."""
        gate, up = torch.bmm(x, self.up[layer]).chunk(2, dim=-1)
        return torch.bmm(torch.nn.functional.silu(gate) * up, self.down[layer])


Around = Callable[[int, Callable[[], torch.Tensor]], torch.Tensor]


def forward(layers: Layers, x: torch.Tensor, around: Around) -> torch.Tensor:
    """Every layer, each within `around`."""
    for index in range(LAYERS):
        x = around(index, lambda x=x, index=index: layers.run(x, index))
    return x


def capture(layers: Layers, x: torch.Tensor, around: Around) -> torch.cuda.CUDAGraph:
    """A graph of the whole forward pass."""
    forward(layers, x, around)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward(layers, x, around)
    return graph


def sampled(count: int) -> frozenset[int]:
    """First, last, then evenly between."""
    return frozenset(
        {1: [0], 2: [0, LAYERS - 1], 4: [0, 2, 5, LAYERS - 1]}.get(count, range(LAYERS))
    )


class Marked:
    """Markers around some layers, counting into slots of one bucket."""

    def __init__(
        self, writer: RecordWriter, backend: DeviceMarkers, bucket: int, which: frozenset[int]
    ) -> None:
        self.backend, self.bucket, self.which = backend, bucket, which
        self.slots = {layer: _slot(writer, SlotKind.KERNEL, bucket, layer) for layer in which}
        self.window = _slot(writer, SlotKind.WINDOW, bucket, None)

    def __call__(self, layer: int, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        if layer not in self.which:
            return work()
        slot, window = self.slots[layer], self.window if len(self.which) > 1 else None
        self.backend.start(slot, window if layer == min(self.which) else None)
        result = work()
        self.backend.stop(slot, 1, window if layer == max(self.which) else None)
        return result


def _slot(writer: RecordWriter, kind: SlotKind, bucket: int, layer: int | None) -> Slot:
    key = SlotKey(
        kind=kind, mode=GraphMode.FULL, phase=BatchPhase.DECODE, bucket=bucket, layer=layer
    )
    number = writer.slot(key)
    assert number is not None
    return Slot(number=number, word=pack_key(key))


def plain(_: int, work: Callable[[], torch.Tensor]) -> torch.Tensor:
    """No timing at all."""
    return work()


def empty_nodes(which: frozenset[int]) -> Around:
    """An empty kernel where each marker would be."""

    def around(layer: int, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        if layer not in which:
            return work()
        _empty[(1,)](num_warps=1)
        result = work()
        _empty[(1,)](num_warps=1)
        return result

    return around


def external_events(which: frozenset[int]) -> Around:
    """A pair of PyTorch's external events a layer: they give the last replay's time alone."""
    events = {n: [torch.cuda.Event(enable_timing=True, external=True) for _ in "ab"] for n in which}

    def around(layer: int, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        if layer not in which or not torch.cuda.is_current_stream_capturing():
            return work()
        events[layer][0].record()
        result = work()
        events[layer][1].record()
        return result

    around.events = events  # type: ignore[attr-defined]
    return around


def rounds(graphs: dict[str, torch.cuda.CUDAGraph]) -> dict[str, list[float]]:
    """Seconds of a replay, each way in every round, in an order of its own."""
    found: dict[str, list[float]] = {name: [] for name in graphs}
    order, shuffle = list(graphs), random.Random(1).shuffle
    for graph in graphs.values():
        timed(graph, _REPLAYS)
    for _ in range(_ROUNDS):
        shuffle(order)
        for name in order:
            found[name].append(timed(graphs[name], _REPLAYS))
    return found


def against(found: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Median difference per replay in us and in percent, with a bootstrap's 95 % interval."""
    differences = [a - b for a, b in zip(found[name], found[base], strict=True)]
    draw = random.Random(2)
    medians = sorted(
        statistics.median(draw.choices(differences, k=len(differences))) for _ in range(2000)
    )
    whole = statistics.median(found[base])
    middle = statistics.median(differences)
    return {
        "microseconds": middle * 1e6,
        "low": medians[50] * 1e6,
        "high": medians[-51] * 1e6,
        "percent": 100 * middle / whole,
    }


def nodes_alone(device: torch.device) -> dict[str, float]:
    """Microseconds a node in graphs of nothing else: empty, stores without and with fences."""
    place = torch.zeros(64, dtype=torch.int64, device=device)
    pinned = torch.zeros(64, dtype=torch.int64, pin_memory=True)
    ways: dict[str, Callable[[], Any]] = {
        "empty": lambda: _empty[(1,)](num_warps=1),
        "stores to the device": lambda: _fenced[(1,)](place.data_ptr(), FENCE=False, num_warps=1),
        "stores to the device, two fences": lambda: _fenced[(1,)](
            place.data_ptr(), FENCE=True, num_warps=1
        ),
        "stores to the host": lambda: _fenced[(1,)](pinned.data_ptr(), FENCE=False, num_warps=1),
        "stores to the host, two fences": lambda: _fenced[(1,)](
            pinned.data_ptr(), FENCE=True, num_warps=1
        ),
    }
    graphs = {name: captured(work, 200) for name, work in ways.items()}
    return {
        name: statistics.median(timed(graph, 1) for _ in range(21)) / 200 * 1e6
        for name, graph in graphs.items()
    }


def cost(layers: Layers, writer: RecordWriter, backend: DeviceMarkers) -> dict[str, Any]:
    """The table of costs."""
    x, every = layers.inputs(8), sampled(LAYERS)
    graphs = {"none": capture(layers, x, plain), "none again": capture(layers, x, plain)}
    for count in (1, 2, 4, LAYERS):
        around = Marked(writer, backend, 100 + count, sampled(count))
        graphs[f"markers, {count} layers"] = capture(layers, x, around)
    for count in (2, LAYERS):
        graphs[f"empty nodes, {count} layers"] = capture(layers, x, empty_nodes(sampled(count)))
    events = external_events(sampled(2))  # a graph keeps no event alive
    graphs["external events, 2 layers"] = capture(layers, x, events)
    backend.gate(is_open=True)
    found = rounds(graphs)
    rows = {name: against(found, name, "none") for name in graphs if name != "none"}
    backend.gate(is_open=False)
    closed = f"markers, {LAYERS} layers"
    shut = rounds({"none": graphs["none"], closed: graphs[closed]})
    rows[f"{closed}, gate closed"] = against(shut, closed, "none")
    backend.gate(is_open=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]):
        profiled = [timed(graphs["none"], 5) for _ in range(10)]
    usual = [timed(graphs["none"], 5) for _ in range(10)]
    rows["torch.profiler, CUDA activities"] = {
        "microseconds": (statistics.median(profiled) - statistics.median(usual)) * 1e6,
        "percent": 100 * (statistics.median(profiled) / statistics.median(usual) - 1),
    }
    all_markers = rows[closed]["microseconds"] / len(every) / 2
    all_empty = rows[f"empty nodes, {LAYERS} layers"]["microseconds"] / len(every) / 2
    return {
        "step_ms": statistics.median(found["none"]) * 1e3,
        "rows": rows,
        "node_us": {"marker": all_markers, "empty": all_empty, "ratio": all_markers / all_empty},
    }


def truth(
    layers: Layers, folder: Path, writer: RecordWriter, backend: DeviceMarkers, bias: float
) -> list[dict[str, Any]]:
    """Sum of the layers' means over the time, by events, of the same work without markers."""
    rows = []
    graphs: dict[int, tuple[torch.Tensor, Around, torch.cuda.CUDAGraph, torch.cuda.CUDAGraph]] = {}
    for batch in (1, 8, 64):  # all captured before any is replayed
        x = layers.inputs(batch)
        around = Marked(writer, backend, batch, sampled(LAYERS))
        graphs[batch] = x, around, capture(layers, x, around), capture(layers, x, plain)
    for batch, (x, around, marked, bare) in graphs.items():
        ways: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
            "graph": (partial(timed, marked, 10), partial(timed, bare, 10)),
            "eager": (
                partial(_eager, partial(forward, layers, x, around)),
                partial(_eager, partial(forward, layers, x, plain)),
            ),
        }
        for mode, (with_markers, without) in ways.items():
            with_markers()
            torch.cuda.synchronize()
            before = _sums(folder, batch)
            pairs = [(with_markers(), without()) for _ in range(20)]
            torch.cuda.synchronize()
            after = _sums(folder, batch)
            means = sum((after[n][0] - before[n][0]) / (after[n][1] - before[n][1]) for n in after)
            alone = statistics.mean(pair[1] for pair in pairs)
            rows.append(
                {
                    "mode": mode,
                    "rows an expert": batch,
                    "sum of means us": means * 1e6,
                    "with markers us": statistics.mean(pair[0] for pair in pairs) * 1e6,
                    "without markers us": alone * 1e6,
                    "ratio": means / alone,
                    "ratio without bias": (means - bias * LAYERS) / alone,
                }
            )
    return rows


def _eager(work: Callable[[], Any]) -> float:
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(2_000_000)  # so that the device never waits for the host's launches
    begun.record()
    work()
    ended.record()
    ended.synchronize()
    return begun.elapsed_time(ended) / 1e3


def _sums(folder: Path, bucket: int) -> dict[int, tuple[float, int]]:
    (record,) = read_records(folder)
    return {
        key.layer: (total.seconds, total.count)
        for key, total in record.totals.items()
        if key.kind is SlotKind.KERNEL and key.bucket == bucket and key.layer is not None
    }


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    device = torch.device("cuda", 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        clock = clock_of(device)
        writer = RecordWriter(folder, Rank(), clock_hertz=clock.hertz)
        backend = DeviceMarkers(writer, device, clock=clock)
        begun = time.perf_counter()
        calibrated = backend.calibrate()
        found = {
            "device": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "triton": triton.__version__,
            "clock": {"hertz": clock.hertz, "source": clock.source},
            "path": backend.path,
            "calibration": {
                "pair_us": calibrated.pair_seconds * 1e6,
                "bias_us": calibrated.bias_seconds * 1e6,
                "took_s": time.perf_counter() - begun,
            },
            "nodes alone, us": nodes_alone(device),
        }
        layers = Layers(device)
        found["cost"] = cost(layers, writer, backend)
        found["truth"] = truth(layers, folder, writer, backend, calibrated.bias_seconds)
        backend.close()
        writer.close()
    options.output.write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
