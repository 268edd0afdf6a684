"""Real `vllm serve` processes on one GPU, each with its exporter, and what is asked of them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from moe_serve_demo.servers import MODEL_NAME, DemoArm, DemoServer, Place

from tools.gpu import place
from tools.gpu.stages import engines

# Of each set of servers; sets may stand side by side.
_PORTS = {"chain": 18_700, "gate": 18_800, "accept": 18_900}


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuArm(DemoArm):
    """An arm on a GPU; `backend` is vLLM's choice of kernels for the experts.

    `markers`: `auto`, or `off` for what timing costs.
    """

    backend: str = "aiter"
    markers: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How all arms of a comparison serve; bytes of KV cache, and one's share of the GPU's memory.

    `seeded`: the model's weights are made on the device. `real`: AITER's own kernels serve, nothing
    is emulated, and vLLM chooses its backends.
    """

    model: Path
    seeded: bool
    cache_bytes: int = 4 << 30
    share: float = 0.2
    sequences: int = 64
    model_length: int = 1024
    graphs: str = "FULL_DECODE_ONLY"
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    compiled: bool = False
    real: bool = False
    flags: Sequence[str] = ()


class GpuServer(DemoServer):
    """A vLLM server on the GPU, in its own process group, with an exporter beside it."""

    arm: GpuArm

    def __init__(self, arm: GpuArm, place: Place, serving: Serving) -> None:
        self.serving = serving
        super().__init__(arm, place)

    def command(self) -> list[str]:
        """The command line, as a person could type it."""
        serving = self.serving
        flags = {
            "--served-model-name": MODEL_NAME,
            "--host": "127.0.0.1",
            "--port": str(self.place.port),
            **({} if serving.real else self._emulated()),
            "--max-model-len": str(serving.model_length),
            "--max-num-seqs": str(serving.sequences),
            "--max-num-batched-tokens": "2048",
            "--max-logprobs": "20",
            "--seed": "0",
            "--gpu-memory-utilization": str(serving.share),
            "--kv-cache-memory-bytes": str(serving.cache_bytes),
            "--compilation-config": json.dumps(
                engines.graphs(serving.graphs, serving.sizes, serving.compiled)
            ),
            **({"--load-format": "moe_seeded"} if serving.seeded else {}),
        }
        return [
            *(str(self.place.vllm_python), "-m", "vllm.entrypoints.cli.main", "serve"),
            str(serving.model),
            *(word for pair in flags.items() for word in pair),
            "--no-enable-prefix-caching",
            *serving.flags,
        ]

    def _emulated(self) -> dict[str, str]:
        return {"--moe-backend": self.arm.backend, "--attention-backend": "TRITON_ATTN"}

    def variables(self) -> dict[str, str]:
        """The environment: this machine's, and the arm's own settings."""
        emulation = {place.EMULATION: ""} if self.serving.real else {}
        return place.environment(
            **emulation,
            MOE_SERVE_MARKERS=self.arm.markers,
            MOE_SERVE_PADDING=self.arm.policy,
            MOE_SERVE_MAX_NEURON_LOSS=str(self.arm.max_neuron_loss),
            MOE_SERVE_RECORD_DIR=str(self.records),
            VLLM_ENABLE_V1_MULTIPROCESSING="1",
            # Where vLLM looks for free ports: servers that start together must not find the same.
            VLLM_PORT=str(self.place.port + 20_000),
        )


@contextlib.contextmanager
def served(
    arms: Sequence[GpuArm], servings: Sequence[Serving], work: Path
) -> Iterator[dict[str, GpuServer]]:
    """Run every arm at once; gives the servers by name once all answer, and ends them after."""
    # A device writes into its record: it belongs into shared memory.
    records = Path("/dev/shm") / f"moe-serve-{work.name}-{os.getpid()}"
    with ExitStack() as stack:
        found: dict[str, GpuServer] = {}
        for number, (arm, serving) in enumerate(zip(arms, servings, strict=True)):
            server = GpuServer(
                arm,
                Place(
                    vllm_python=Path(sys.executable),
                    model=serving.model,
                    port=_PORTS[work.name] + 10 * number,
                    core=None,
                    work=work,
                    records=records / arm.name,
                    environment=os.environ,
                ),
                serving,
            )
            server.log = place.WORK / "logs" / f"{work.name}-{arm.name}.log"
            stack.callback(server.stop)
            server.start()
            found[arm.name] = server
        for server in found.values():
            seconds = server.wait_ready(lambda _: None)
            print(f"{server.arm.name}: ready after {seconds:.0f} s more", flush=True)
        yield found


def moe_serve(*words: str, seconds: float) -> dict[str, Any]:
    """Run `moe-serve` as an operator would; its JSON, exit code and wall time."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "moe_serve", *words],
            env=place.environment(), capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        code, out, err = -1, "", f"stopped after {seconds:.0f} s"
    print("moe-serve", *words, "->", code, err[-1000:], flush=True)
    try:
        found = json.loads(out)
    except ValueError:
        found = {"text": out[-2000:]}
    lines = err.strip().splitlines()
    return {
        **found,
        "exit_code": code,
        "wall_seconds": round(time.monotonic() - begun, 1),
        "said": lines[-1] if lines else "",
    }


def probe_words(stable: GpuServer, canary: GpuServer, *, known: bool = True) -> list[str]:
    """`moe-serve quality probe` of two servers; `known`: with their exporters."""
    words = ["quality", "probe", "--stable-url", stable.url, "--canary-url", canary.url]
    if known:
        words += [
            "--stable-exporter",
            f"{stable.exporter_url}/metrics",
            "--canary-exporter",
            f"{canary.exporter_url}/metrics",
        ]
    return [*words, "--output", "json"]


def proven(server: GpuServer) -> dict[str, Any]:
    """The exporter's readiness, and the preflight's proof, of one arm."""
    ready = httpx.get(f"{server.exporter_url}/-/ready", timeout=10).status_code
    words = ["preflight", "--proof", "--record-dir", str(server.records)]
    proof = moe_serve(*words, "--url", f"{server.url}/health", seconds=60)
    return {"exporter_ready": ready, "proof": proof["exit_code"]}


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """What a page needs of a comparison of answers."""
    names = (
        "outcome", "reason", "number", "allowed", "rounds", "requests_an_arm", "seconds", "cells",
        "canary", "exit_code", "wall_seconds", "said",
    )  # fmt: skip
    return {name: found[name] for name in names if name in found}
