"""The quality gate's errors on a GPU: a model that has learned something, sound and broken arms.

Real servers of the learned model in MXFP4, each probed by itself against one of two sound ones, at
up to 64 requests in flight. They get no other load: the gate compares how answers end, so the
probed pods are dark, as in a rollout. What each arm's outcome has to be is written down here.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from moe_serve_emulation.cuda.folders import learned

from tools.gpu import goals, place
from tools.gpu.stages import engines
from tools.gpu.stages.servers import (
    GpuArm,
    GpuServer,
    Serving,
    brief,
    moe_serve,
    probe_words,
    served,
)

TEXTS = ["--texts", "128", "--tokens", "32", "--greedy-tokens", "16", "--top", "5"]
ROUNDS = ["--per-round", "64", "--rounds", "8", "--concurrency", "1,16,64", "--top", "5"]
ITEMS = 1319
TASK = ["--mode", "non-inferior", "--task", "arithmetic", "--items", str(ITEMS), "--top", "5"]
# The tasks' own answers are short; what is broken may never end.
FLAGS = ("--override-generation-config", '{"max_new_tokens": 32}')


@dataclass(frozen=True, slots=True)
class Case:
    """An arm; what its comparison with stable must end with in each mode (None: not promised)."""

    title: str
    arm: GpuArm
    identical: str
    non_inferior: str | None
    fault: str | None = None


# Two, so that two canaries can be probed at a time.
STABLE = (GpuArm(name="stable", policy="zero"), GpuArm(name="stable-2", policy="zero"))
CASES = (
    Case("none: equal arms", GpuArm(name="same", policy="zero"), "passed", "passed"),
    Case("none: pads `aligned`", GpuArm(name="aligned", policy="aligned"), "passed", "passed"),
    Case(
        "none: another kernel (vLLM's own Triton experts)",
        GpuArm(name="own", policy="off", backend="triton"),
        "passed",
        "passed",
    ),
    Case(
        "192 of 2880 neurons lost in every layer",
        GpuArm(name="upstream", policy="upstream", max_neuron_loss=0.07),
        "failed",
        None,
    ),
    Case(
        "192 of 2880 neurons lost in one layer",
        GpuArm(name="cut", policy="zero"),
        "failed",
        None,
        "cut-layer",
    ),
    Case(
        "two experts swapped in one layer",
        GpuArm(name="swapped", policy="zero"),
        "failed",
        "failed",
        "swapped",
    ),
)


def gate() -> dict[str, Any]:
    """Outcome, prompts and seconds of every case in both modes; whether all are as written."""
    models = place.WORK / "models"
    models.mkdir(parents=True, exist_ok=True)
    arms = (*STABLE, *(case.arm for case in CASES))
    faults = (*(None for _ in STABLE), *(case.fault for case in CASES))
    servings = [
        Serving(
            model=learned(models, fault),
            seeded=False,
            cache_bytes=1 << 30,
            share=0.05,
            sizes=(1, 4, 16, 64),
            flags=FLAGS,
        )
        for fault in faults
    ]
    work = place.WORK / "gate"
    work.mkdir(parents=True, exist_ok=True)
    with served(arms, servings, work) as servers, place.quiet():
        kept = _kept(servers, work)
        free: Queue[GpuServer] = Queue()
        for arm in STABLE:
            free.put(servers[arm.name])
        with ThreadPoolExecutor(len(STABLE)) as pool:
            rows = list(pool.map(lambda c: _judged(c, free, servers[c.arm.name], kept), CASES))
    wrong = [
        f"{row['title']}, {mode}"
        for row in rows
        for mode in ("identical", "non_inferior")
        if row[f"promised_{mode}"] not in (None, row[mode].get("outcome"))
    ]
    return {"rows": rows, "items": ITEMS, "met": not wrong, "not_as_promised": wrong}


@dataclass(frozen=True, slots=True)
class Kept:
    """What was stored of stable, and of an arm that is known to be bad."""

    texts: Path
    marks: Path
    bad: Path


def _kept(servers: dict[str, GpuServer], work: Path) -> Kept:
    kept = Kept(work / "gold.jsonl", work / "gold.json", work / "bad.json")
    for file in (kept.texts, kept.marks, kept.bad):
        file.unlink(missing_ok=True)
    for name, file, words in (
        ("stable", kept.texts, TEXTS),
        ("stable", kept.marks, TASK),
        ("swapped", kept.bad, TASK),
    ):
        found = moe_serve(
            *("quality", "record", "--server", servers[name].url, "--file", str(file)),
            *("--concurrency", "64", *words),
            seconds=120,
        )
        engines.require(found["exit_code"] == 0, f"record {file.name}", found)
    return kept


def _judged(case: Case, free: "Queue[GpuServer]", canary: GpuServer, kept: Kept) -> dict[str, Any]:
    stable = free.get()
    try:
        return _both_modes(case, stable, canary, kept)
    finally:
        free.put(stable)


def _both_modes(case: Case, stable: GpuServer, canary: GpuServer, kept: Kept) -> dict[str, Any]:
    both = probe_words(stable, canary, known=case.arm.policy != "off")
    texts = moe_serve(*both, "--gold", str(kept.texts), *ROUNDS, seconds=goals.GATE_SECONDS)
    marks = moe_serve(
        *both, *TASK, "--gold", str(kept.marks), "--known-bad", str(kept.bad),
        "--concurrency", "64", seconds=goals.GATE_SECONDS,
    )  # fmt: skip
    return {
        "title": case.title,
        "promised_identical": case.identical,
        "promised_non_inferior": case.non_inferior,
        "identical": brief(texts),
        "non_inferior": brief(marks),
    }
