"""The emulated kernel alone: its answers, and whether its time follows its bytes."""

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tools.gpu import goals, place

HIDDEN = INTER = 3072
LIVE = 2880
TOP_K = 4
PADS = {"zero": (0, 0), "aligned": (192, 192), "upstream": (128, 384), "zero again": (0, 0)}
BATCHES = (1, 8, 16, 32, 64)
SHAPES = {"20b": 32, "120b": 128}
# Weights of several layers take turns, so that none is found in the L2 cache.
# Bytes per second: no memory of a GPU delivers so much, so no such time is true.
_IMPOSSIBLE = 10e12
LAYERS, ROUNDS, REPLAYS = {"20b": 6, "120b": 3}, 15, 4


def conformance() -> dict[str, Any]:
    """The tests on the device: the CPU kernel's answers, poison included, and the plugin's own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-o", "addopts=", "-o", "timeout=0", "-W", "ignore"),
            *("-q", "-p", "no:cacheprovider", "--durations=5", "tests/gpu"),
        ],
        env=place.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        raise RuntimeError(f"pytest ended with {done.returncode}: " + "\n".join(lines[-30:]))
    return {"tests": lines[-1]}


def speed() -> dict[str, Any]:
    """Speed-up over pads of zero beside the bytes', by batch; vLLM's own kernel in the same run."""
    rows = [_row(shape, batch) for shape in SHAPES for batch in BATCHES]
    judged = [row for row in rows if row["batch"] in goals.BYTES_BATCHES]
    off = [
        row["speedup"][name] - row["bytes"][name]
        for row in judged
        for name in ("aligned", "upstream")
    ]
    return {
        "rows": rows,
        "goal": goals.OFF_BYTES,
        "furthest_off": max(off, key=abs),
        "met": all(abs(each) <= goals.OFF_BYTES for each in off),
    }


def tune() -> dict[str, Any]:
    """Microseconds of a call with pads of zero, by launch shape and batch; no pads are tried."""
    from moe_serve_emulation.cuda.tiles import Tiles

    candidates = [
        Tiles(rows=rows, width=width, warps=warps, stages=stages, swap=swap)
        for rows, width, warps, stages, swap in (
            (16, 64, 4, 4, False), (16, 64, 2, 3, False), (16, 64, 2, 4, False),
            (16, 64, 2, 5, False), (16, 128, 4, 2, False), (16, 128, 4, 3, False),
            (16, 128, 4, 4, False), (16, 32, 1, 4, False), (16, 32, 1, 6, False),
            (16, 32, 2, 5, False), (16, 32, 4, 4, False), (16, 128, 4, 3, True),
        )
    ]  # fmt: skip
    rows = []
    for shape in SHAPES:
        bench = Bench(shape)
        for tiles in candidates:
            for batch in (1, 16, 64):
                try:
                    graph = bench.graph(batch, (0, 0), tiles)
                except Exception as error:  # noqa: BLE001  # one that does not compile is no choice
                    rows.append({"shape": shape, "tiles": str(tiles), "error": str(error)[:200]})
                    break
                seconds = statistics.median(timed(graph, REPLAYS) for _ in range(8)) / bench.layers
                rows.append(
                    {
                        "shape": shape,
                        "batch": batch,
                        "tiles": str(tiles),
                        "microseconds": round(seconds * 1e6, 2),
                    }
                )
    return {"rows": rows}


class Bench:
    """Random MXFP4 experts of some layers, and graphs of a call to each of them."""

    def __init__(self, shape: str) -> None:
        import torch

        self.experts, self.layers = SHAPES[shape], LAYERS[shape]
        self._make = torch.Generator("cuda").manual_seed(0)
        self.weights = [self._layer() for _ in range(self.layers)]
        # A graph holds addresses and keeps nothing alive.
        self.inputs: dict[int, tuple[Any, Any, Any]] = {}
        self.own: list[Any] = []

    def _layer(self) -> Any:
        import torch
        from moe_serve_emulation.cuda.experts import Weights

        def random(low: int, high: int, *sizes: int) -> Any:
            return torch.randint(
                low, high, sizes, dtype=torch.uint8, device="cuda", generator=self._make
            )

        return Weights(
            w1=random(0, 256, self.experts, 2 * INTER, HIDDEN // 2),
            w2=random(0, 256, self.experts, HIDDEN, INTER // 2),
            scales1=random(119, 122, self.experts, 2 * INTER, HIDDEN // 32),
            scales2=random(119, 122, self.experts, HIDDEN, INTER // 32),
            bias1=torch.randn(self.experts, 2 * INTER, device="cuda") * 0.1,
            bias2=torch.randn(self.experts, HIDDEN, device="cuda") * 0.1,
        )

    def batch(self, tokens: int) -> tuple[Any, Any, Any]:
        """Activations, shares and experts of a batch; the same tensors for all pads."""
        import torch

        if tokens in self.inputs:
            return self.inputs[tokens]
        make = torch.Generator("cuda").manual_seed(tokens)
        x = torch.randn(tokens, HIDDEN, device="cuda", generator=make).bfloat16()
        x[:, LIVE:] = 0
        scores = torch.rand(tokens, self.experts, device="cuda", generator=make)
        best = scores.topk(TOP_K, -1)
        self.inputs[tokens] = x, best.values.softmax(-1), best.indices.to(torch.int32)
        return self.inputs[tokens]

    def graph(self, tokens: int, pads: tuple[int, int], tiles: Any = None) -> Any:
        """A captured call to every layer."""
        from moe_serve_emulation.cuda import experts
        from moe_serve_emulation.skips import KernelConfig

        x, shares, ids = self.batch(tokens)

        def calls() -> None:
            for weights in self.weights:
                experts.fused_moe(
                    x, weights, shares, ids, hidden_pad=pads[0], intermediate_pad=pads[1],
                    config=KernelConfig(), launch=tiles,
                )  # fmt: skip

        return captured(calls)


def captured(work: Callable[[], None]) -> Any:
    """A CUDA graph of the work, run once before."""
    import torch

    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    torch.cuda.synchronize()
    return graph


def timed(graph: Any, replays: int) -> float:
    """Seconds of one replay among several."""
    import torch

    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(replays):
        graph.replay()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3 / replays


def in_turn(graphs: Mapping[str, Any], rounds: int, replays: int) -> dict[str, list[float]]:
    """Seconds of a replay, each graph in each round, in a rotating order."""
    found: dict[str, list[float]] = {name: [] for name in graphs}
    names = list(graphs)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            found[name].append(timed(graphs[name], replays))
    return found


_BENCHES: dict[str, Bench] = {}


def _row(shape: str, batch: int) -> dict[str, Any]:
    from moe_serve_emulation.skips import KernelConfig, reads

    if shape not in _BENCHES:
        _BENCHES.clear()
        _BENCHES[shape] = Bench(shape)
    bench = _BENCHES[shape]
    graphs = {name: bench.graph(batch, pads) for name, pads in PADS.items()}
    own = _own(bench, batch)
    found = in_turn({**graphs, **own}, ROUNDS, REPLAYS)
    middle = {name: statistics.median(values) for name, values in found.items()}
    weights = {
        name: reads(
            hidden=HIDDEN, inter=INTER, hidden_pad=pads[0], intermediate_pad=pads[1],
            config=KernelConfig(),
        ).weights
        for name, pads in PADS.items()
    }  # fmt: skip
    hit = int(bench.batch(batch)[2].unique().numel())
    seconds = middle["zero"] / bench.layers
    achieved = hit * weights["zero"] * (0.5 + 1 / 32) / seconds
    if achieved > _IMPOSSIBLE:
        raise RuntimeError(
            f"{shape}, batch {batch}: {achieved:.3g} bytes/s is more than memory has"
        )
    row: dict[str, Any] = {
        "shape": shape,
        "batch": batch,
        "experts_hit": hit,
        "microseconds": {n: round(s / bench.layers * 1e6, 2) for n, s in middle.items()},
        "speedup": {n: middle["zero"] / middle[n] for n in middle if n != "zero"},
        "bytes": {n: weights["zero"] / weights[n] for n in PADS},
        "bytes_per_second": achieved,
    }
    return row


def _own(bench: Bench, batch: int) -> dict[str, Any]:
    """VLLM's own Triton kernel for MXFP4 on experts of the live sizes, for its speed alone."""
    try:
        return {"vLLM's Triton": own_graph(bench, batch)}
    except Exception as error:  # noqa: BLE001  # its API is no contract; the row then lacks it
        print(f"vLLM's own kernel: {type(error).__name__}: {error}")
        return {}


def own_graph(bench: Bench, batch: int) -> Any:
    """A graph of vLLM's `triton_kernel_moe_forward` on as many layers of the live sizes.

    Weights are random in the checkpoint's layout and go through vLLM's own swizzle. Its time has
    the router's choice in it, which the emulated call has not.
    """
    import torch
    from triton_kernels.matmul_ogs import FlexCtx, PrecisionConfig
    from vllm.model_executor.layers.fused_moe.config import mxfp4_w4a16_moe_quant_config
    from vllm.model_executor.layers.fused_moe.experts import gpt_oss_triton_kernels_moe as own
    from vllm.model_executor.layers.quantization.utils.mxfp4_utils import _swizzle_mxfp4

    make = torch.Generator("cuda").manual_seed(1)

    def random(low: int, high: int, *sizes: int) -> Any:
        return torch.randint(low, high, sizes, dtype=torch.uint8, device="cuda", generator=make)

    x = bench.batch(batch)[0][:, :LIVE].contiguous()
    logits = torch.rand(batch, bench.experts, device="cuda", generator=make).bfloat16()
    layers = []
    for _ in range(bench.layers):
        weights, configs, biases = [], [], []
        for rows in (2 * LIVE, LIVE):
            codes = random(0, 256, bench.experts, rows, LIVE // 2)
            scales = random(119, 122, bench.experts, rows, LIVE // 32)
            weight, flex, scale = _swizzle_mxfp4(codes, scales)
            weights.append(weight)
            configs.append(PrecisionConfig(weight_scale=scale, flex_ctx=FlexCtx(rhs_data=flex)))
            biases.append(torch.randn(bench.experts, rows, device="cuda") * 0.1)
        quant = mxfp4_w4a16_moe_quant_config(*configs, *biases)
        layers.append((*weights, quant))

    def calls() -> None:
        for w1, w2, quant in layers:
            own.triton_kernel_moe_forward(
                x, w1, w2, logits, topk=TOP_K, renormalize=True, quant_config=quant
            )

    bench.own = [x, logits, layers]
    return captured(calls)
