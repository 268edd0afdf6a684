"""What markers cost a decode step of real vLLM, and whether events agree, in one engine.

The engine's graphs are captured several times, with markers, without them and with an empty kernel
in each marker's place, and all are kept. They are replayed in turn, in a random order each round,
and timed by events. A second capture of each is the noise floor. Then the engine serves with each
set of graphs in turn: tokens per second through vLLM's whole loop.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import triton

from tools.gpu import goals
from tools.gpu.stages import engines
from tools.gpu.stages.counts import worker
from tools.gpu.stages.truth import between, replayed

BATCHES = (1, 8, 64, 256)
SIZE = "20b"
WAYS = ("off", "on", "empty", "off again", "on again")
EVENTS = "events"
ROUNDS, REPLAYS, LOOPS, NEW_TOKENS, _TRUTH_REPLAYS = 30, 6, 3, 48, 30


@triton.jit
def _empty():
    pass


class Captures:
    """The engine's graphs by way of timing; what is captured last is what vLLM replays."""

    def __init__(self) -> None:
        from vllm.compilation.cuda_graph import CUDAGraphWrapper

        from moe_serve.vllm_plugin.markers.sampler import Sampler

        (self._wrapper,) = engines.objects(CUDAGraphWrapper)
        self._worker = worker()
        (self._sampler,) = engines.objects(Sampler)
        self._graphs: dict[str, dict[Any, Any]] = {}
        self.events: dict[int, list[tuple[Any, Any]]] = {}

    def capture(self, way: str) -> None:
        """Capture all sizes once more, timed in this way."""
        from aiter import fused_moe as aiter_call

        from moe_serve.vllm_plugin.markers.sampler import InstrumentationState

        sampler = self._sampler
        kept = sampler.state, sampler._backend.start, sampler._backend.stop
        if way.startswith("off") or way == EVENTS:
            sampler.state = InstrumentationState.OFF
        if way.startswith("empty"):
            sampler._backend.start = lambda *_: _empty[(1,)](num_warps=1)
            sampler._backend.stop = lambda *_: _empty[(1,)](num_warps=1)
        self._wrapper.concrete_cudagraph_entries = {}
        inner = aiter_call.fused_moe
        aiter_call.fused_moe = self._with_events(inner) if way == EVENTS else inner
        try:
            self._worker.compile_or_warm_up_model()
        finally:
            sampler.state, sampler._backend.start, sampler._backend.stop = kept
            aiter_call.fused_moe = inner
        self._graphs[way] = dict(self._wrapper.concrete_cudagraph_entries)

    def _with_events(self, inner: Any) -> Any:
        """The fused MoE call between two external events, while it is captured."""
        import torch

        def fused_moe(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            if not torch.cuda.is_current_stream_capturing():
                return inner(hidden_states, *args, **kwargs)
            pair = tuple(torch.cuda.Event(enable_timing=True, external=True) for _ in range(2))
            pair[0].record()
            result = inner(hidden_states, *args, **kwargs)
            pair[1].record()
            self.events.setdefault(hidden_states.shape[0], []).append(pair)
            return result

        return fused_moe

    def truth(self, batch: int) -> dict[str, float]:
        """First and last layer, microseconds: events of one capture, markers of another."""
        import torch

        from moe_serve.telemetry.slots import BatchPhase

        pairs, sums = self.events[batch], []
        before = engines.record()
        for _ in range(_TRUTH_REPLAYS):
            self.graph(EVENTS, batch).replay()
            torch.cuda.synchronize()
            sums.append(sum(a.elapsed_time(b) for a, b in (pairs[0], pairs[-1])) * 1e3)
            self._sampler.serving(BatchPhase.DECODE)
            self.graph("on", batch).replay()
            self._sampler.serving(None)
        found = between(before, engines.record(), batch)
        markers = sum(seconds / count for count, seconds in found.values()) * 1e6
        events, bias = statistics.mean(sums), 2e6 * self._sampler.cost.bias_seconds
        return {
            "events_us": events,
            "marker_us": markers,
            "marker_over_events": markers / events,
            "marker_less_bias_over_events": (markers - bias) / events,
        }

    def use(self, way: str) -> None:
        """Serve with the graphs of this way from now on."""
        self._wrapper.concrete_cudagraph_entries = self._graphs[way]

    def graph(self, way: str, batch: int) -> Any:
        """The graph of a batch size."""
        (found,) = [e for d, e in self._graphs[way].items() if d.num_tokens == batch]
        return found.cudagraph


def cost() -> dict[str, Any]:
    """Differences per step in microseconds and percent, by batch, with 95 % intervals."""
    os.environ["MOE_SERVE_PADDING"] = "aligned"
    llm = engines.engine(
        SIZE, gpu_memory_utilization=0.5, compilation_config=engines.graphs(sizes=BATCHES)
    )
    for batch in BATCHES:
        engines.generate(llm, batch, new=8)
    captures = Captures()
    for way in (*WAYS, EVENTS):
        captures.capture(way)
    rows = [_row(llm, captures, batch) for batch in BATCHES]
    worst = max(row["on"]["percent"] for row in rows) / 100
    ratio = statistics.median(
        row["on"]["microseconds"] / row["empty"]["microseconds"] for row in rows
    )
    return {
        "model": SIZE,
        "markers": engines.record().proof["markers"],
        "layers": 2,
        "rows": rows,
        "goal": goals.STEP_COST,
        "worst": worst,
        "met": worst <= goals.STEP_COST,
        "marker_over_empty": ratio,
        "marker_goal": goals.MARKER_OVER_EMPTY,
        "marker_met": ratio <= goals.MARKER_OVER_EMPTY,
    }


def _row(llm: Any, captures: Captures, batch: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    order, draw = list(WAYS), random.Random(batch)
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for way in order:
            found[way].append(replayed(captures.graph(way, batch), REPLAYS))
    return {
        "batch": batch,
        "step_us": statistics.median(found["off"]) * 1e6,
        **{way: against(found[way], found["off"]) for way in WAYS if way != "off"},
        "truth": captures.truth(batch),
        "tokens_per_second": _rates(captures, lambda: _served(llm, batch)),
    }


def _rates(captures: Captures, work: Callable[[], float]) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {"off": [], "on": []}
    for turn in range(LOOPS):
        for way in list(rates)[:: 1 if turn % 2 else -1]:
            captures.use(way)
            rates[way].append(work())
    captures.use("on")
    return rates


def _served(llm: Any, batch: int) -> float:
    begun = time.perf_counter()
    engines.generate(llm, batch, new=NEW_TOKENS)
    return batch * NEW_TOKENS / (time.perf_counter() - begun)


def against(one: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Median difference of the same rounds in microseconds, a bootstrap's interval, and percent."""
    differences = [a - b for a, b in zip(one, base, strict=True)]
    draw = random.Random(2)
    medians = sorted(
        statistics.median(draw.choices(differences, k=len(differences))) for _ in range(1000)
    )
    middle = statistics.median(differences)
    return {
        "microseconds": middle * 1e6,
        "low": medians[25] * 1e6,
        "high": medians[-26] * 1e6,
        "percent": 100 * middle / statistics.median(base),
    }
