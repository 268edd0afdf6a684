"""GPT-OSS-120B's shape: all layers and experts, one arm after the other in this order of pads."""

import json
import os
import subprocess
import sys
from typing import Any

from tools.gpu import place

SIZE = "120b"
ARMS = ("zero", "aligned")
BATCHES = (1, 16, 64)
NEW_TOKENS, LOOPS = 128, 3


def large() -> dict[str, Any]:
    """Kernel and window means and tokens per second by arm and batch, and how answers compare."""
    arms = {policy: _ran(policy) for policy in ARMS}
    answers = {policy: arm.pop("answers") for policy, arm in arms.items()}
    from tools.gpu.stages.engines import apart

    return {
        "model": SIZE,
        "arms": arms,
        "answers": apart(answers["zero"], answers["aligned"]),
        "speedup": {
            str(batch): {
                what: arms["zero"]["batches"][str(batch)][what]
                / arms["aligned"]["batches"][str(batch)][what]
                for what in ("kernel_us", "window_us", "seconds")
            }
            for batch in BATCHES
        },
    }


def _ran(policy: str) -> dict[str, Any]:
    log = (place.WORK / "logs" / f"large-{policy}.log").open("wb")
    done = subprocess.run(
        [sys.executable, "-m", "tools.gpu.stages.large"],
        env=place.environment(MOE_SERVE_PADDING=policy),
        stdout=subprocess.PIPE,
        stderr=log,
        check=True,
    )
    (line,) = [x for x in done.stdout.splitlines() if x.startswith(b"ANSWER ")]
    found: dict[str, Any] = json.loads(line[7:])
    return found


def _serve() -> None:
    """One arm: answers first, then every batch several times."""
    import statistics
    import time

    from tools.gpu.stages import engines

    begun = time.perf_counter()
    llm = engines.engine(
        SIZE,
        gpu_memory_utilization=0.9,
        max_num_seqs=64,
        compilation_config=engines.graphs(sizes=BATCHES),
    )
    found: dict[str, Any] = {"ready_seconds": time.perf_counter() - begun, "batches": {}}
    found["answers"] = engines.scored(llm)
    for batch in BATCHES:
        engines.generate(llm, batch, new=8)
    for batch in BATCHES:
        before, took = engines.record(), []
        for _ in range(LOOPS):
            begun = time.perf_counter()
            engines.generate(llm, batch, new=NEW_TOKENS)
            took.append(time.perf_counter() - begun)
        after = engines.record()
        seconds = statistics.median(took)
        found["batches"][str(batch)] = {
            "kernel_us": mean(before, after, "KERNEL", batch),
            "window_us": mean(before, after, "WINDOW", batch),
            "seconds": seconds,
            "tokens_per_second": batch * NEW_TOKENS / seconds,
        }
    found["proof"] = engines.proof(engines.record())
    print("ANSWER", json.dumps(found, default=str), flush=True)


def mean(before: Any, after: Any, kind: str, batch: int) -> float:
    """Mean microseconds of full decode graphs of a batch size between two records."""
    count, seconds = 0, 0.0
    for key, total in after.totals.items():
        if (key.kind.name, key.mode.name, key.bucket) == (kind, "FULL", batch):
            first = before.totals.get(key)
            count += total.count - (first.count if first else 0)
            seconds += total.seconds - (first.seconds if first else 0.0)
    return seconds / count * 1e6


if __name__ == "__main__":
    _serve()
    sys.stdout.flush()
    os._exit(0)
