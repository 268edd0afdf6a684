"""What a scrape of the exporter costs, beside vLLM's own metrics through the same library.

    python benchmarks/scrape.py --output out.json

Both sides are real processes asked over loopback in turn: the exporter over records as a default
pod and as the largest one writes them, and prometheus-client with as many series as vLLM 0.32 has
for one engine (its names and label names, its buckets).
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_serve.telemetry.proof import (
    DeviceProof,
    GraphsProof,
    HiddenIntermediate,
    InstrumentationState,
    LayersProof,
    MarkersProof,
    Proof,
    ShapeProof,
)
from moe_serve.telemetry.record import BatchPhase, GraphMode, Rank, RecordWriter, SlotKey, SlotKind

# As vLLM captures them for GPT-OSS: 1, 2, 4, then every 8 up to 256, every 16 up to 1024 (83).
SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, 1025, 16))
_ROUNDS = 40
_VLLM = """
import sys, time
from prometheus_client import Counter, Gauge, Histogram, start_http_server
labels = ("model_name", "engine")
buckets = {
    "vllm:time_to_first_token_seconds": 24, "vllm:inter_token_latency_seconds": 20,
    "vllm:request_time_per_output_token_seconds": 20, "vllm:e2e_request_latency_seconds": 21,
    "vllm:request_queue_time_seconds": 21, "vllm:request_inference_time_seconds": 21,
    "vllm:request_prefill_time_seconds": 21, "vllm:request_decode_time_seconds": 21,
    "vllm:request_prompt_tokens": 16, "vllm:request_generation_tokens": 16,
    "vllm:iteration_tokens_total": 15, "vllm:request_max_num_generation_tokens": 16,
    "vllm:request_params_n": 5, "vllm:request_params_max_tokens": 16,
}
for name, count in buckets.items():
    bounds = [2.0**n for n in range(count)]
    Histogram(name, name, labels, buckets=bounds).labels("m", "0").observe(1)
for index in range(40):
    (Counter if index % 2 else Gauge)(f"vllm:number_{index}", "text", labels).labels("m", "0")
start_http_server(int(sys.argv[1]), "127.0.0.1")
time.sleep(600)
"""


Write = tuple[RecordWriter, list[SlotKey]]


def write(folder: Path, *, ranks: int, layers: int, sizes: tuple[int, ...]) -> list[Write]:
    """Records of `ranks` workers that timed `layers` layers at all of `sizes`, and their slots."""
    writes = []
    for tp in range(ranks):
        writer, every = RecordWriter(folder, Rank(tp=tp)), []
        for size in sizes:
            for mode, phase in (
                (GraphMode.FULL, BatchPhase.DECODE),
                (GraphMode.PIECEWISE, BatchPhase.ANY),
            ):
                keys = [
                    SlotKey(kind=SlotKind.KERNEL, mode=mode, phase=phase, bucket=size, layer=layer)
                    for layer in range(layers)
                ]
                keys.append(SlotKey(kind=SlotKind.WINDOW, mode=mode, phase=phase, bucket=size))
                every += keys
        for _ in range(3):
            work(writer, every)
        writer.stepped(BatchPhase.DECODE, 64)
        writer.prove(proof(layers))
        writes.append((writer, every))
    return writes


def work(writer: RecordWriter, keys: list[SlotKey]) -> None:
    """One more call of each slot."""
    for key in keys:
        writer.add(key, random.randrange(80_000, 400_000), tokens=key.bucket)


def proof(layers: int) -> Proof:
    """As a worker on an MI355X would write it."""
    return Proof(
        moe_serve="0.1.0",
        policy="aligned",
        max_neuron_loss=0.0,
        vllm="0.32.0",
        aiter="0.1.7",
        torch="2.11.0",
        intercepted_calls=1024,
        graphs=GraphsProof(sizes=SIZES, modes=("full", "piecewise")),
        worker_config_digest="0123456789abcdef",
        device=DeviceProof(type="hip", name="AMD Instinct MI355X", clock_hertz=100_000_000),
        layers=LayersProof(moe=36, sampled=tuple(range(layers))),
        markers=MarkersProof(
            state=InstrumentationState.ON,
            budget_ratio=0.005,
            pair_seconds=2e-6,
            bias_seconds=7e-7,
            overhead_ratio=0.001,
        ),
        shapes=(
            ShapeProof(
                padded=HiddenIntermediate(hidden=3072, intermediate=3072),
                hidden=2880,
                live_neurons=2880,
                experts=128,
                all_experts=128,
                top_k=4,
                quant="w4a16",
                path="cktile",
                raw=HiddenIntermediate(hidden=192, intermediate=192),
                upstream=HiddenIntermediate(hidden=128, intermediate=384),
                sent=HiddenIntermediate(hidden=128, intermediate=128),
                lost_neurons=0,
                loss_fraction=0.0,
                bytes_ratio=1.0449,
                safe=True,
                verified=True,
                violations=(),
            ),
        ),
    )


@contextlib.contextmanager
def running(port: int, command: list[str]) -> Iterator[int]:
    """A process that answers on a loopback port."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                scrape(port)
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def scrape(port: int) -> tuple[float, int]:
    """Seconds, and series in the answer."""
    begun = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read()
    return time.perf_counter() - begun, sum(not row.startswith(b"#") for row in text.splitlines())


def resident_mib(pid: int) -> float:
    """What the process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--port", type=int, default=19400)
    options = parser.parse_args()
    cases = {
        "default pod: 1 rank, 2 layers, 24 sizes hit": (1, 2, SIZES[:24]),
        "largest pod: 8 ranks, 4 layers, all 83 sizes": (8, 4, SIZES),
    }
    with contextlib.ExitStack() as stack:
        found: dict[str, Any] = {}
        ports: dict[str, tuple[int, int]] = {}
        writes: list[Write] = []
        for index, (name, (ranks, layers, sizes)) in enumerate(cases.items()):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
            for writer, keys in write(folder, ranks=ranks, layers=layers, sizes=sizes):
                stack.callback(writer.close)
                writes.append((writer, keys))
            port = options.port + index
            command = [sys.executable, "-m", "moe_serve", "exporter", "--record-dir", str(folder)]
            command += ["--listen", f"127.0.0.1:{port}", "--ranks", str(ranks)]
            ports[name] = port, stack.enter_context(running(port, command))
        port = options.port + len(cases)
        command = [sys.executable, "-c", _VLLM, str(port)]
        ports["vLLM's own metrics, one engine"] = port, stack.enter_context(running(port, command))
        times: dict[str, list[float]] = {name: [] for name in ports}
        series = {}
        for _ in range(_ROUNDS):
            for writer, keys in writes:  # between two scrapes a worker meets some sizes, not all
                work(writer, random.sample(keys, len(keys) // 4))
            for name, (port, _pid) in ports.items():
                took, series[name] = scrape(port)
                times[name].append(took)
        for name, (_port, pid) in ports.items():
            found[name] = {
                "median_ms": statistics.median(times[name]) * 1e3,
                "worst_ms": max(times[name]) * 1e3,
                "series": series[name],
                "resident_mib": resident_mib(pid),
            }
    options.output.write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
