"""The product's quality probe on both arms, at a size for two processor cores."""

import json
from collections.abc import Callable
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.probe import rounds, run
from moe_serve.probe.exporter import ExporterClient
from moe_serve.probe.run import GateResult, Texts
from moe_serve.probe.server import ProbedServer
from moe_serve.quality.identical import ProbePlan
from moe_serve.quality.noninferior import TaskPlan
from moe_serve.quality.tasks import formats
from moe_serve_demo.load import prompts
from moe_serve_demo.scenarios import DemoChapter
from moe_serve_demo.servers import DemoServer

SEED = 20
TOP = 5  # log-probabilities per position, as many as the demo's servers allow
CONCURRENCIES = (4, 8)
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 64, 6, 8
ITEMS = 250


async def probe(
    stable: DemoServer, canary: DemoServer, chapter: DemoChapter, told: Callable[[str], None]
) -> GateResult:
    """Compare the arms' answers: right answers of a learned model, else log-probabilities.

    `told` is called with a line after each round.

    Raises:
        ProbeError: an arm or its exporter does not answer.
        UsageError: an arm changed meanwhile.
    """
    async with _probed(stable, "stable") as first, _probed(canary, "canary") as second:
        if chapter.learned:
            task = formats(ITEMS, seed=SEED)
            return await run.non_inferior(
                first,
                second,
                task,
                TaskPlan(task=task.name, items=ITEMS),
                gold=None,
                known_bad=None,
                concurrency=max(CONCURRENCIES),
                chat=False,
            )
        words = prompts(PROMPTS, vocabulary=chapter.vocabulary, seed=SEED, tokens=PROMPT_TOKENS)
        return await run.identical(
            first,
            second,
            ProbePlan(cells=rounds.cells(CONCURRENCIES), rounds=2),
            gold=None,
            texts=Texts(
                prompts={f"seeded-{number}": tokens for number, tokens in enumerate(words)},
                sampled_tokens=ANSWER_TOKENS,
                greedy_tokens=ANSWER_TOKENS,
                chat=False,
            ),
            per_round=PROMPTS,
            told=told,
        )


def _probed(server: DemoServer, arm: str) -> ProbedServer:
    exporter = ExporterClient(f"{arm}'s exporter", server.exporter_url)
    return ProbedServer(arm, server.url, top=TOP, exporter=exporter)


def write(path: Path, result: GateResult) -> None:
    """Write the probe's result as `moe-serve quality probe --output json` prints it.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n", "utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
