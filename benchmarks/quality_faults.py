"""The gate against faults in real CPU servers: which it catches, in which mode, and how fast.

    python -m benchmarks.quality_faults --vllm-python .venv-vllm/bin/python \
        --output benchmarks/results/quality_faults.json

Two servers at a time, a core each: a sound one of the learned models, and an arm with one fault.
Both modes ask through the command line, `moe-serve quality`, as an operator would.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve_demo.errors import DemoError
from moe_serve_demo.servers import DemoArm, DemoServer, Place
from moe_serve_emulation import STANDIN

from moe_serve.cli.main import main as moe_serve

ROOT = Path(__file__).parents[1]
PORT, READY = 18520, 180
ITEMS = 1319
TEXTS = ["--texts", "64", "--tokens", "32", "--greedy-tokens", "16", "--top", "5"]
ROUNDS = ["--per-round", "64", "--rounds", "8", "--concurrency", "1,8", "--top", "5"]
TASK = ["--mode", "non-inferior", "--task", "arithmetic", "--items", str(ITEMS), "--top", "5"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An arm: the learned model of this width, with one fault or none."""

    title: str
    width: int
    policy: str = "aligned"
    loss: float = 0.0
    fault: str | None = None
    kernel: str = "cktile"


CASES = (
    Case(title="none: pads `aligned`", width=360),
    Case(title="104 of 360 neurons lost", width=360, policy="rounded", loss=0.3),
    Case(title="104 of 360 neurons lost in one layer of two", width=360, fault="cut-layer"),
    Case(title="two experts swapped in one layer", width=360, fault="swapped"),
    Case(title="one expert's scale off by one exponent", width=360, fault="off-scale"),
    Case(title="none: pads `aligned`", width=2880),
    Case(title="192 of 2880 neurons lost", width=2880, policy="rounded", loss=0.07),
    Case(
        title="columns that were never written (FlyDSL)",
        width=2880,
        policy="raw",
        kernel="flydsl",
    ),
)
# Known to be bad beforehand: what the task must fail before it can pass anything.
KNOWN_BAD = Case(title="known bad", width=0, fault="swapped")


class CaseServer(DemoServer):
    """Serves with this checkout's emulation, on the case's kernel."""

    def __init__(self, arm: DemoArm, place: Place, kernel: str) -> None:
        self.kernel = kernel
        super().__init__(arm, place)

    def command(self) -> list[str]:
        """Room for the task's answers, and no prompt in pieces.

        vLLM's CPU worker dies of a seeded request whose prompt it has to split.
        """
        words = super().command()
        for flag, value in (("--max-model-len", "1024"), ("--max-num-batched-tokens", "8192")):
            words[words.index(flag) + 1] = value
        # What is broken may never end; the right answers have seven tokens at most.
        return [*words, "--override-generation-config", '{"max_new_tokens": 32}']

    def variables(self) -> dict[str, str]:
        """The arm's own, and the kernel that is emulated."""
        path = os.pathsep.join((str(STANDIN), str(ROOT)))
        own = {"PYTHONPATH": path, "MOE_SERVE_EMULATE_AITER": self.kernel}
        return {**super().variables(), **own}


def folder(case: Case, models: Path, python: Path) -> Path:
    """The served model, made where torch is."""
    words = ["--cache", str(models), "--intermediate", str(case.width)]
    words += ["--fault", case.fault] if case.fault else []
    made = subprocess.run(
        [python, "-m", "benchmarks.faulty_weights", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return Path(made.stdout.strip())


@contextlib.contextmanager
def served(
    case: Case, name: str, work: Path, python: Path, *, slot: int
) -> Iterator[tuple[str, float]]:
    """Run the case's server; gives its address and the seconds that it took to start."""
    made = folder(case, work / "models", python)
    server = CaseServer(
        DemoArm(name=name, policy=case.policy, max_neuron_loss=case.loss),
        Place(
            vllm_python=python,
            model=made,
            port=PORT + slot,
            core=sorted(os.sched_getaffinity(0))[slot],
            work=work,
            environment=os.environ,
        ),
        case.kernel,
    )
    server.start()
    try:
        yield server.url, server.wait_ready(lambda _: None)
    finally:
        server.stop()


def recorded(url: str, file: Path, words: list[str]) -> None:
    """Store what this server answers.

    Raises:
        DemoError: it does not.
    """
    if moe_serve(["quality", "record", "--server", url, "--file", str(file), *words]):
        raise DemoError(f"{url}: nothing recorded")


def asked(*words: str) -> dict[str, Any]:
    """What `moe-serve quality` prints as JSON; its one line of refusal as `reason` otherwise."""
    begun, out, err = time.monotonic(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = moe_serve(["quality", *words])
    if code == 2:
        said = err.getvalue().strip().splitlines()
        told: dict[str, Any] = {"outcome": "refused", "reason": said[-1] if said else ""}
    else:
        told = json.loads(out.getvalue()) if "json" in words else {}
    return {**told, "wall_seconds": round(time.monotonic() - begun, 1)}


def judged(stable: str, canary: str, kept: Path) -> dict[str, Any]:
    """One arm in both modes, against what was stored of stable."""
    both = ["--stable-url", stable, "--canary-url", canary, "--output", "json"]
    texts = ["--gold", str(kept / "gold.jsonl"), *ROUNDS]
    marks = ["--gold", str(kept / "gold.json"), "--known-bad", str(kept / "bad.json")]
    return {
        "identical": brief(asked("probe", *both, *texts)),
        "non-inferior": brief(asked("probe", *both, *TASK, *marks, "--concurrency", "8")),
    }


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of an answer."""
    names = ("outcome", "reason", "rounds", "requests_an_arm", "seconds", "wall_seconds", "canary")
    return {name: found[name] for name in names if name in found}


def width_judged(width: int, only: str, work: Path, python: Path) -> list[dict[str, Any]]:
    """All cases of a width against one sound server."""
    kept, rows = work / str(width), []
    kept.mkdir()
    bad = Case(title=KNOWN_BAD.title, width=width, fault=KNOWN_BAD.fault)
    with served(
        Case(title="stable", width=width, policy="raw"), "stable", work, python, slot=0
    ) as (url, _):
        recorded(url, kept / "gold.jsonl", TEXTS)
        recorded(url, kept / "gold.json", TASK)
        with served(bad, "bad", work, python, slot=1) as (other, _):
            recorded(other, kept / "bad.json", TASK)
        for number, case in enumerate(CASES):
            if case.width != width or only not in case.title:
                continue
            with served(case, f"case-{number}", work, python, slot=1) as (other, start):
                row = {"title": case.title, "width": width, "start_seconds": round(start, 1)}
                rows.append(row | judged(url, other, kept))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Serve, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose title has this")
    parser.add_argument("--vllm-python", type=Path, required=True)
    args = parser.parse_args()
    python = args.vllm_python.absolute()
    with tempfile.TemporaryDirectory(prefix="quality-faults-") as work:
        widths = sorted({case.width for case in CASES if args.only in case.title})
        rows = [
            row for width in widths for row in width_judged(width, args.only, Path(work), python)
        ]
    args.output.write_text(json.dumps({"items": ITEMS, "cases": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
