"""What markers cost a decode step of real vLLM: two engines that differ in them, in turn.

Each engine is a process that replays its own captured graph of a batch size when asked, and times
it by events on the device. A third engine is without markers again: the noise floor. Tokens per
second through vLLM's whole loop are taken in turn as well.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tools.gpu import goals, place

BATCHES = (1, 8, 64, 256)
ARMS = {"off": "off", "on": "auto", "off again": "off"}
SIZE = "20b"
ROUNDS, REPLAYS, LOOPS, NEW_TOKENS = 40, 10, 3, 64


class Arm:
    """An engine in a process of its own, asked line by line."""

    def __init__(self, name: str, markers: str) -> None:
        self.name = name
        log = (place.WORK / "logs" / f"cost-{name.replace(' ', '-')}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.gpu.stages.cost"],
            env=place.environment(MOE_SERVE_PADDING="aligned", MOE_SERVE_MARKERS=markers),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def ask(self, **question: Any) -> Any:
        """The answer to one question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer; the first one comes unasked, once the engine is ready."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b"ANSWER "):
                return json.loads(line[7:])
        raise RuntimeError(f"{self.name}: the engine ended; see logs/cost-*.log")

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def cost() -> dict[str, Any]:
    """Difference per step in microseconds and in percent, by batch, with a 95 % interval."""
    arms = {name: Arm(name, markers) for name, markers in ARMS.items()}
    try:
        ready = {name: arm.answer() for name, arm in arms.items()}
        rows = [_row(arms, batch) for batch in BATCHES]
    finally:
        for arm in arms.values():
            arm.stop()
    worst = max(row["on"]["percent"] for row in rows) / 100
    return {
        "model": SIZE,
        "markers": {name: each["markers"] for name, each in ready.items()},
        "rows": rows,
        "goal": goals.STEP_COST,
        "worst": worst,
        "met": worst <= goals.STEP_COST,
    }


def _row(arms: dict[str, Arm], batch: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {name: [] for name in arms}
    order, draw = list(arms), random.Random(batch)
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for name in order:
            found[name].append(arms[name].ask(replay=batch, times=REPLAYS))
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(LOOPS):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            rates[name].append(arms[name].ask(generate=batch))
    return {
        "batch": batch,
        "step_us": statistics.median(found["off"]) * 1e6,
        **{name: against(found[name], found["off"]) for name in arms if name != "off"},
        "tokens_per_second": {name: statistics.median(each) for name, each in rates.items()},
    }


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


def _serve() -> None:
    """An arm's process: an engine, and answers to what its standard input asks."""
    import time

    from tools.gpu.stages import engines
    from tools.gpu.stages.truth import captured_graph, replayed

    llm = engines.engine(
        SIZE, gpu_memory_utilization=0.25, compilation_config=engines.graphs(sizes=BATCHES)
    )
    for batch in BATCHES:
        engines.generate(llm, batch, new=8)
    _say({"markers": engines.record().proof["markers"]})
    for line in sys.stdin:
        question = json.loads(line)
        if "replay" in question:
            _say(replayed(captured_graph(question["replay"]), question["times"]))
        else:
            begun = time.perf_counter()
            engines.generate(llm, question["generate"], new=NEW_TOKENS)
            _say(question["generate"] * NEW_TOKENS / (time.perf_counter() - begun))


def _say(answer: Any) -> None:
    print("ANSWER", json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
    os._exit(0)
