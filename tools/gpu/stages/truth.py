"""The markers' means against the profiler's time stamps, in real vLLM's own replays."""

import os
from typing import Any

from tools.gpu import goals
from tools.gpu.stages import engines

BATCHES = (1, 8, 64)
NEW_TOKENS = 65


def truth() -> dict[str, Any]:
    """Ratios of the sums of means over the layers, by batch; the goal holds or it does not."""
    os.environ |= {"MOE_SERVE_PADDING": "aligned", "MOE_SERVE_MARKER_LAYERS": "all"}
    os.environ["MOE_SERVE_MARKER_BUDGET"] = "1"
    llm = engines.engine("small", compilation_config=engines.graphs(sizes=BATCHES))
    rows = [_row(llm, batch) for batch in BATCHES]
    off = max(abs(row["marker_over_profiler"] - 1) for row in rows)
    return {"rows": rows, "goal": goals.TRUTH, "furthest_off": off, "met": off <= goals.TRUTH}


def _row(llm: Any, batch: int) -> dict[str, Any]:
    from torch.profiler import ProfilerActivity, profile

    engines.generate(llm, batch, new=NEW_TOKENS)
    plain = _means(llm, batch)
    before = engines.record()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        engines.generate(llm, batch, new=NEW_TOKENS)
        import torch

        torch.cuda.synchronize()
    markers = between(before, engines.record(), batch)
    replays = min(count for count, _ in markers.values())
    spans = _spans(profiler)[-replays * len(markers) :]
    layers = len(markers)
    by_marker = sum(seconds / count for count, seconds in markers.values()) * 1e6
    gaps, starts, kernels = (sum(span[at] for span in spans) / replays / 1e3 for at in range(3))
    return {
        "batch": batch,
        "layers": layers,
        "replays": replays,
        "spans": len(spans),
        "marker_us": by_marker,
        "marker_us_without_profiler": plain,
        "profiler_us": starts,
        "profilerbetween_markers_us": gaps,
        "profiler_sum_of_kernels_us": kernels,
        "marker_over_profiler": by_marker / starts,
        "marker_over_gap": by_marker / gaps,
    }


def between(before: Any, after: Any, batch: int) -> dict[int, tuple[int, float]]:
    """Count and seconds of the full graph's calls between two records, by layer."""
    found = {}
    for key, total in after.totals.items():
        if (key.kind.name, key.mode.name, key.bucket) != ("KERNEL", "FULL", batch):
            continue
        first = before.totals.get(key)
        count = total.count - (first.count if first else 0)
        if count:
            found[key.layer] = count, total.seconds - (first.seconds if first else 0.0)
    return found


def _means(llm: Any, batch: int) -> float:
    """Sum over layers of the markers' means, microseconds, with no profiler about."""
    before = engines.record()
    engines.generate(llm, batch, new=NEW_TOKENS)
    found = between(before, engines.record(), batch)
    return sum(seconds / count for count, seconds in found.values()) * 1e6


def _spans(profiler: Any) -> list[tuple[int, int, int]]:
    """Per pair of markers: between them, from start to start, and its kernels' sum, nanoseconds."""
    events = [
        e
        for e in profiler.profiler.kineto_results.events()
        if str(e.device_type()).endswith("CUDA")
    ]
    events.sort(key=lambda event: event.start_ns())
    spans, begun, inside = [], None, 0
    for event in events:
        if "start_marker" in event.name():
            begun, inside = event, 0
        elif "stop_marker" in event.name() and begun is not None:
            whole = event.start_ns() - begun.start_ns()
            spans.append((whole - begun.duration_ns(), whole, inside))
            begun = None
        elif begun is not None:
            inside += event.duration_ns()
    return spans


def captured_graph(batch: int) -> Any:
    """The engine's full graph of this batch size; None where this vLLM keeps it elsewhere."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    for wrapper in engines.objects(CUDAGraphWrapper):
        for descriptor, entry in wrapper.concrete_cudagraph_entries.items():
            if descriptor.num_tokens == batch and entry.cudagraph is not None:
                return entry.cudagraph
    return None


def replayed(graph: Any, replays: int = 1) -> float:
    """Seconds of one replay of a graph, by events."""
    import torch

    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(replays):
        graph.replay()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3 / replays
