"""The whole chain on one GPU: serve, load, export, scrape, probe, judge, report.

Four servers of GPT-OSS-20B's full shape stand side by side: pads `zero` (stable), `aligned`,
`upstream`, and `zero` once more. They share the GPU, so only one is under load at a time: each
window loads every arm in turn, in an order that is reversed from one window to the next. A block is
two windows; the product's own source, judge and report take it from there.
"""

import asyncio
import datetime
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from moe_serve_demo.load import complete, prompts
from moe_serve_demo.measure import scraper
from moe_serve_emulation.cuda.folders import seeded

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.history import History
from moe_serve.analysis.noise import Design, PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.analysis.policy import Policy
from moe_serve.analysis.verdict import Verdict
from moe_serve.analysis.windows import BlockingScheme
from moe_serve.quality.finding import finding
from moe_serve.report import comparison, data
from moe_serve.report.page import page
from moe_serve.report.summary import summary
from moe_serve.sources.scraped import Scraper
from tools.gpu import goals, place
from tools.gpu.stages import engines
from tools.gpu.stages.servers import (
    GpuArm,
    GpuServer,
    Serving,
    brief,
    moe_serve,
    probe_words,
    proven,
    served,
)

SIZE = "20b"
BATCHES = (16, 64)
NEW_TOKENS = 64
STABLE = GpuArm(name="stable", policy="zero")
CANARIES = (
    GpuArm(name="aligned", policy="aligned"),
    GpuArm(name="upstream", policy="upstream", max_neuron_loss=0.07),
    GpuArm(name="same", policy="zero"),
)
EXPECTED = {
    "aligned": {Verdict.PROMOTE},
    "upstream": {Verdict.ROLLBACK},
    "same": {Verdict.ROLLBACK, Verdict.KEEP_GOING},
}
QUALITY = {"aligned": "passed", "upstream": "failed", "same": "passed"}
TITLES = {
    "aligned": "Lossless pads inside CUDA graphs",
    "upstream": "vLLM's own pads at TP=1: faster, and wrong",
    "same": "No change: both arms send the same pads",
}
PLAN = AnalysisPlan(
    policy=Policy(margin=goals.MARGIN),
    blocking=BlockingScheme(
        block_seconds=2 * goals.WINDOW_SECONDS, window_seconds=goals.WINDOW_SECONDS, min_count=8
    ),
    deadline_seconds=2 * goals.WINDOW_SECONDS * goals.BLOCKS,
    design=Design.CROSSOVER,
    # One GPU, arms in turn, one start of each server: how far two starts differ is not included.
    pod_variation=PodVariation(),
    under_test=("policy", "hidden_pad", "intermediate_pad"),
    # Sizes that the load reaches; its first and last steps have others.
    batches=BATCHES,
)
PROBE = [
    "--concurrency", "1,16", "--texts", "256", "--tokens", "32", "--greedy-tokens", "16",
    "--per-round", "64", "--rounds", "4",
]  # fmt: skip


def chain() -> dict[str, Any]:
    """Verdicts, gains and answers of three canaries; leaves a report in the results' folder.

    Raises:
        AssertionError: a verdict is not the one that a sound run ends with.
    """
    model = seeded(place.WORK / "models", SIZE)
    serving = Serving(model=model, seeded=True)
    arms = (STABLE, *CANARIES)
    work = place.WORK / "chain"
    work.mkdir(parents=True, exist_ok=True)
    names = [arm.name for arm in CANARIES]
    with ExitStack() as stack:
        with place.quiet():
            begun = time.monotonic()
            servers = stack.enter_context(served(arms, [serving] * len(arms), work))
            ready = time.monotonic() - begun
            proofs = {name: proven(server) for name, server in servers.items()}
            histories, rates = asyncio.run(measured(servers, canaries=names))
        print(json.dumps({"tokens_per_second": rates, "proofs": proofs}), flush=True)
        answers = probed(servers, names, PROBE)
        commands = [" ".join(server.command()) for server in servers.values()]
    found = {name: judged(histories[name], answers[name]) for name in names}
    report(found, histories, commands)
    document = {
        "model": SIZE,
        "ready_seconds": ready,
        "proofs": proofs,
        "tokens_per_second": rates,
        "goal": {"margin": goals.MARGIN, "blocks": goals.BLOCKS},
        "canaries": {
            name: {
                "verdict": each.judgement.verdict.value,
                "reason": each.judgement.reason,
                "kernel": speedup(each.estimates.kernel),
                "window": speedup(each.estimates.step),
                "bytes": math.exp(each.observations.byte_bound or 0.0),
                "answers": brief(answers[name]),
            }
            for name, each in found.items()
        },
    }
    wrong = {
        name: each["verdict"]
        for name, each in document["canaries"].items()
        if Verdict(each["verdict"]) not in EXPECTED[name]
        or each["answers"].get("outcome") != QUALITY[name]
    }
    print(json.dumps(document, indent=1), flush=True)
    engines.require(not wrong, f"verdicts {document['canaries']}", wrong)
    bad = [n for n, each in proofs.items() if (each["exporter_ready"], each["proof"]) != (200, 0)]
    engines.require(not bad, "every arm is ready and proven", proofs)
    return document


async def measured(
    servers: Mapping[str, GpuServer], *, canaries: Sequence[str], blocks: int = goals.BLOCKS
) -> tuple[dict[str, History], dict[str, dict[str, float]]]:
    """Each canary's history beside stable's, and every arm's tokens per second by batch size.

    Raises:
        AssertionError: loading every arm once took longer than a window.
    """
    stable = next(iter(servers))
    sources = {
        name: scraper(servers[stable].exporter_url, servers[name].exporter_url) for name in canaries
    }
    rates: dict[str, dict[int, list[float]]] = {n: {b: [] for b in BATCHES} for n in servers}
    # No connection is used twice: a server closes what was idle for five seconds, and an arm waits
    # about that long for its turn.
    limits = httpx.Limits(max_connections=128, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        for server in servers.values():
            for batch in BATCHES:
                await load(client, server, batch)
        await scraped(sources)
        begun = time.time()
        for window in range(1, 2 * blocks + 1):
            for name in list(servers)[:: 1 if window % 2 else -1]:
                for batch in BATCHES:
                    rates[name][batch].append(await load(client, servers[name], batch))
            left = begun + window * goals.WINDOW_SECONDS - time.time()
            engines.require(left >= 0, f"a window has {goals.WINDOW_SECONDS:g} s", left)
            await asyncio.sleep(left)
            await scraped(sources)
    end = begun + 2 * blocks * goals.WINDOW_SECONDS
    medians = {
        name: {str(batch): statistics.median(values) for batch, values in each.items()}
        for name, each in rates.items()
    }
    return {name: source.history(begun, end) for name, source in sources.items()}, medians


async def scraped(sources: Mapping[str, Scraper]) -> None:
    """Scrape both exporters of every comparison.

    Raises:
        AssertionError: one does not answer.
    """
    for source in sources.values():
        await asyncio.to_thread(source.poll)
        engines.require(not source.faults, "every exporter answers", source.faults)


async def load(client: httpx.AsyncClient, server: GpuServer, batch: int) -> float:
    """`batch` requests at once, all equally long; tokens per second."""
    server.require_alive()
    words = range(engines.TOKENS.start, engines.TOKENS.stop)
    asked = prompts(batch, vocabulary=words, seed=batch, tokens=16)
    begun = time.perf_counter()
    await asyncio.gather(
        *(
            complete(
                client,
                server.url,
                {
                    "prompt": list(each),
                    "max_tokens": NEW_TOKENS,
                    "temperature": 0,
                    "ignore_eos": True,
                },
            )
            for each in asked
        )
    )
    return batch * NEW_TOKENS / (time.perf_counter() - begun)


def probed(
    servers: Mapping[str, GpuServer], canaries: Sequence[str], how: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compare each canary's answers with stable's, one canary after the other."""
    stable = next(iter(servers.values()))
    asked = place.WORK / "prompts.jsonl"
    texts = prompts(640, vocabulary=range(3, 500), seed=7, tokens=24)
    asked.write_text(
        "".join(json.dumps({"prompt": " ".join(f"w{t}" for t in text)}) + "\n" for text in texts)
    )

    def probe(name: str) -> dict[str, Any]:
        words = [*probe_words(stable, servers[name]), *how, "--prompts", str(asked)]
        return moe_serve(*words, seconds=goals.GATE_SECONDS)

    return {name: probe(name) for name in canaries}


def judged(history: History, answers: Mapping[str, Any]) -> Findings:
    """The judge's findings on one canary's history and its answers' comparison."""
    return examine(history, PLAN, finding(answers))


def chapter(name: str, found: Findings, history: History) -> data.Chapter:
    """One canary's chapter of the report."""
    made = comparison.chapter(history, found)
    return replace(
        made,
        title=TITLES.get(name, name),
        note="GPT-OSS-20B's shape, all layers and experts, seeded MXFP4 weights; full CUDA graphs; "
        "steps are timed as forward windows.",
        canary=replace(made.canary, name=name),
        dots="one block: two windows with the arms in opposite order",
        published=(),
    )


def speedup(found: Estimate | NoEstimate) -> dict[str, Any]:
    """Ratio and its interval; the reason where there is none."""
    if isinstance(found, NoEstimate):
        return {"reason": found.reason}
    return {
        "speedup": found.speedup,
        "low": math.exp(found.lo),
        "high": math.exp(found.hi),
        "blocks": found.blocks,
    }


NOT_PROVEN = (
    "No MI355X took part. What AMD's kernels skip was read in AITER's and composable_kernel's "
    "source and is emulated in Triton as read.",
    "The gain in percent is this GPU's over the emulated kernel: it shows that time follows the "
    "bytes inside CUDA graphs, not what an MI355X gains.",
    "The model's weights are random: a comparison shows whether two arms answer alike, not "
    "whether the answers are good.",
    "The arms share one GPU and are loaded in turn; one start of each server.",
)


def report(
    found: Mapping[str, Findings], histories: Mapping[str, History], commands: Sequence[str]
) -> Path:
    """Write the page, its summary and the verdicts' JSON; returns the page's path."""
    import torch

    now = datetime.datetime.now(datetime.UTC)
    device = torch.cuda.get_device_properties(0)
    report_data = data.ReportData(
        title="moe-serve on one GPU",
        created=now.strftime("%Y-%m-%d %H:%M UTC"),
        note="Real vLLM on one NVIDIA GPU, CUDA graphs, served over HTTP. AITER's fused MoE is "
        "emulated in Triton below vLLM's own AITER code; every number was measured in this run.",
        chapters=tuple(chapter(name, each, histories[name]) for name, each in found.items()),
        machine=(
            ("GPU", device.name),
            ("GPU memory", f"{device.total_memory / 2**30:.0f} GiB"),
            ("processor cores", str(os.cpu_count())),
            ("canaries", ", ".join(found)),
        ),
        not_proven=NOT_PROVEN,
        seeds=(("model", "0"),),
        commands=tuple(text.replace(str(place.WORK), "$WORK") for text in commands),
    )
    folder = place.WORK / "report"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "index.html"
    target.write_text(page(report_data), "utf-8")
    (folder / "summary.md").write_text(summary(report_data), "utf-8")
    verdicts = {name: each.to_json() for name, each in found.items()}
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=1) + "\n", "utf-8")
    return target
