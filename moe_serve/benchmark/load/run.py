"""A benchmark from its first request to its last result file."""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.benchmark.load.aggregate import RunFacts, aggregate
from moe_serve.benchmark.load.client import Endpoint, RequestTiming, measure
from moe_serve.benchmark.load.plan import WARMUP_PAIR, Turn, Workload, requests, turns
from moe_serve.benchmark.results import BenchmarkArm
from moe_serve.errors import BenchError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRunner:
    """Two servers and the workload that they get in turn.

    `model` None stands for the only model that both serve. `progress` is called with one line
    after each run.
    """

    endpoints: Mapping[BenchmarkArm, Endpoint]
    images: Mapping[BenchmarkArm, str]
    load: Workload
    folder: Path
    model: str | None
    gpus: int
    hardware: str
    precision: str
    warmup_passes: int
    progress: Callable[[str], None]

    def run(self) -> None:
        """Measure all pairs; write one file per run into `folder` when the run is over.

        Raises:
            UsageError: the folder is not empty, or the servers have no one model that fits.
            BenchError: a server cannot be reached, or answered no request of a run.
        """
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise UsageError(
                f"--out {self.folder}: not an empty folder; runs of two benchmarks do not mix"
            )
        asyncio.run(self._run())

    async def _run(self) -> None:
        model = await self._model()
        self.folder.mkdir(parents=True, exist_ok=True)
        # A new salt per benchmark, so that no prefix cache holds its prompts already.
        salt = secrets.token_hex(8)
        order = list(turns(self.load, warmup_passes=self.warmup_passes))
        for number, turn in enumerate(order, start=1):
            measured = await self._turn(turn, model, salt)
            if turn.pair == WARMUP_PAIR:
                self.progress(f"{number:4}/{len(order)} warm-up  {turn.arm.value:6} {turn.cell}")
                continue
            facts = RunFacts(
                model=model,
                gpus=self.gpus,
                hardware=self.hardware,
                precision=self.precision,
                image=self.images[turn.arm],
            )
            found = aggregate(measured, turn, facts, self.load.pairs)
            self._keep(turn, found)
            self.progress(
                f"{number:4}/{len(order)} pair {turn.pair:<3} {turn.arm.value:6} {turn.cell}: "
                f"{found['tput_per_gpu']:.0f} tokens/s per GPU, {found['failed']} failed"
            )

    async def _turn(self, turn: Turn, model: str, salt: str) -> RequestTiming:
        endpoint, slots = self.endpoints[turn.arm], turn.cell.concurrency
        salt = f"{salt}-{turn.arm.value}"
        if first := requests(self.load, turn, warmup=True):
            await measure(endpoint, [one.body(model, salt) for one in first], slots)
        # Built before the clock starts, because long prompts take the client some time.
        bodies = [one.body(model, salt) for one in requests(self.load, turn)]
        found = await measure(endpoint, bodies, slots)
        if not found.answered:
            reason = found.refused[0].reason if found.refused else "no request was sent"
            raise BenchError(
                f"{turn.arm.value} {endpoint.url}, {turn.cell}: all {len(bodies)} requests failed, "
                f"the first with: {reason}; do --shapes and --vocabulary suit this server?"
            )
        return found

    async def _model(self) -> str:
        served = {arm: await endpoint.models() for arm, endpoint in self.endpoints.items()}
        both = [name for name in served[BenchmarkArm.STABLE] if name in served[BenchmarkArm.CANARY]]
        if self.model is not None:
            both = [name for name in both if name == self.model]
        if len(both) != 1:
            listed = "; ".join(f"{arm.value}: {', '.join(names)}" for arm, names in served.items())
            raise UsageError(f"--model: name one that both servers serve ({listed})")
        longest = max(
            cell.shape.input_tokens + cell.shape.output_tokens for cell in self.load.cells
        )
        for arm, models in served.items():
            limit = models[both[0]]
            if isinstance(limit, int) and limit < longest:
                raise UsageError(
                    f"--shapes: the {arm.value} server takes {limit} tokens, {longest} are needed; "
                    "start it with a larger --max-model-len"
                )
        return both[0]

    def _keep(self, turn: Turn, found: Mapping[str, object]) -> None:
        shape = turn.cell.shape
        name = (
            f"{turn.arm.value}-{shape.input_tokens}x{shape.output_tokens}"
            f"-c{turn.cell.concurrency}-tp{self.gpus}-p{turn.pair}"
        )
        path = self.folder / f"{name}.json"
        try:
            path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", "utf-8")
        except OSError as error:
            raise UsageError(f"--out {path}: {error.strerror or error}") from error
