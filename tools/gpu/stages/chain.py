"""The whole chain on one GPU: serve, load, export, scrape, probe, judge, report.

Four servers of GPT-OSS-20B's full shape stand side by side: pads `zero` (stable), `aligned`,
`upstream`, and `zero` once more. They share the GPU, so only one is under load at a time: each
block loads every arm in turn, in an order that is reversed from one block to the next.
"""

import asyncio
import datetime
import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from moe_serve_demo import evidence
from moe_serve_demo.exporter import Scrape
from moe_serve_demo.load import complete, prompts
from moe_serve_emulation.cuda.folders import seeded

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.judge import judge
from moe_serve.analysis.noise import Design, PodVariation
from moe_serve.analysis.observations import crossover_table
from moe_serve.analysis.policy import Policy, config_digest
from moe_serve.analysis.series import (
    Cell,
    CellKind,
    PairedBlock,
    Placement,
    delta,
    paired_block,
    void_reasons,
)
from moe_serve.analysis.validity import Validity
from moe_serve.analysis.verdict import Judgement, Verdict
from moe_serve.quality.finding import finding
from moe_serve.report import data
from moe_serve.report.page import page
from moe_serve.report.summary import summary
from tools.gpu import goals, place
from tools.gpu.stages import engines
from tools.gpu.stages.machine import versions
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
# Each engine step on a GPU is timed as a window: from the first sampled layer to the last.
_CELLS = {
    CellKind.KERNEL: ("kernel_invocations_total", "kernel_seconds_total", {"role": "target"}),
    CellKind.STEP: ("forward_windows_total", "forward_window_seconds_total", {}),
}
POLICY = Policy(margin=goals.MARGIN)
PROBE = [
    "--concurrency", "1,16", "--texts", "256", "--tokens", "32", "--greedy-tokens", "16",
    "--per-round", "128", "--rounds", "4",
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
    begun = time.monotonic()
    with served(arms, [serving] * len(arms), work) as servers:
        ready = time.monotonic() - begun
        proofs = {name: proven(server) for name, server in servers.items()}
        blocks, rates = asyncio.run(measured(servers, canaries=[arm.name for arm in CANARIES]))
        answers = probed(servers, [arm.name for arm in CANARIES], PROBE)
        facts = {name: evidence.arm_facts(server) for name, server in servers.items()}
        found = {
            name: outcome(name, facts, blocks[name], answers[name])
            for name in (a.name for a in CANARIES)
        }
        commands = [" ".join(server.command()) for server in servers.values()]
    report(found, facts, answers, commands)
    document = {
        "model": SIZE,
        "ready_seconds": ready,
        "proofs": proofs,
        "tokens_per_second": rates,
        "goal": {"margin": goals.MARGIN, "pairs": goals.PAIRS},
        "canaries": {
            name: {
                "verdict": each.judgement.verdict.value,
                "reason": each.judgement.reason,
                "kernel": speedup(each.kernel),
                "window": speedup(each.step),
                "bytes": math.exp(each.byte_bound or 0.0),
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
    servers: Mapping[str, GpuServer], *, canaries: Sequence[str], pairs: int = goals.PAIRS
) -> tuple[dict[str, tuple[PairedBlock, ...]], dict[str, dict[str, float]]]:
    """Load the arms in turn, `pairs` crossover pairs; blocks by canary, and tokens per second."""
    stable = next(iter(servers))
    rates: dict[str, dict[int, list[float]]] = {n: {b: [] for b in BATCHES} for n in servers}
    blocks: dict[str, list[PairedBlock]] = {name: [] for name in canaries}
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=128)) as client:
        for server in servers.values():
            for batch in BATCHES:
                await load(client, server, batch)
        begun = time.monotonic()
        for index in range(2 * pairs):
            order = list(servers)[:: -1 if index % 2 else 1]
            start, grown = time.monotonic() - begun, {}
            for name in order:
                before = read(servers[name])
                for batch in BATCHES:
                    rates[name][batch].append(await load(client, servers[name], batch))
                grown[name] = delta(before, read(servers[name]))
            for name in canaries:
                blocks[name].append(
                    paired_block(
                        index=index,
                        start_seconds=start,
                        placement=(Placement.AB, Placement.BA)[index % 2],
                        stable=grown[stable],
                        canary=grown[name],
                    )
                )
    medians = {
        name: {str(batch): statistics.median(values) for batch, values in each.items()}
        for name, each in rates.items()
    }
    return {name: tuple(found) for name, found in blocks.items()}, medians


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


class Reading:
    """One arm's totals of full decode graphs of the loaded sizes at a moment, from its exporter."""

    def __init__(self, scrape: Scrape) -> None:
        life = (
            scrape.total("source_start_timestamp_seconds"),
            scrape.total("graph_recaptures"),
        )
        self.generation = hash(life)
        self.totals: dict[Cell, tuple[int, float]] = {}
        for kind, (count, seconds, labels) in _CELLS.items():
            wanted = {**labels, "mode": "full", "phase": "decode"}
            spent = {_cell(kind, at): value for at, value in scrape.series(seconds, **wanted)}
            for at, value in scrape.series(count, **wanted):
                cell = _cell(kind, at)
                if cell.bucket in BATCHES:
                    self.totals[cell] = (round(value), spent.get(cell, 0.0))


def read(server: GpuServer) -> Reading:
    """What the arm's exporter says now."""
    return Reading(server.exporter.scrape())


def _cell(kind: CellKind, labels: Mapping[str, str]) -> Cell:
    layer = int(labels["layer"]) if kind is CellKind.KERNEL else None
    return Cell(kind=kind, layer=layer, bucket=int(labels["bucket"]), mode="full")


def probed(
    servers: Mapping[str, GpuServer], canaries: Sequence[str], how: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Compare each canary's answers with stable's, all at the same time."""
    stable = next(iter(servers.values()))
    asked = place.WORK / "prompts.jsonl"
    texts = prompts(640, vocabulary=range(3, 500), seed=7, tokens=24)
    asked.write_text(
        "".join(json.dumps({"prompt": " ".join(f"w{t}" for t in text)}) + "\n" for text in texts)
    )

    def probe(name: str) -> dict[str, Any]:
        words = [*probe_words(stable, servers[name]), *how, "--prompts", str(asked)]
        return moe_serve(*words, seconds=goals.GATE_SECONDS)

    with ThreadPoolExecutor(len(canaries)) as pool:
        return dict(zip(canaries, pool.map(probe, canaries), strict=True))


def settings(pairs: int = goals.PAIRS) -> EstimatorSettings:
    """What the numbers rest on: one GPU, arms in turn, one start of each server."""
    return EstimatorSettings(
        interim_analyses=InterimAnalyses(first=goals.FIRST_LOOK, last=pairs),
        pod_variation=PodVariation(),
        design=Design.CROSSOVER,
        alpha_low=POLICY.alpha_promote,
        alpha_high=POLICY.alpha_rollback,
    )


def outcome(
    name: str,
    facts: Mapping[str, evidence.ArmFacts],
    blocks: tuple[PairedBlock, ...],
    answers: Mapping[str, Any],
) -> data.Chapter:
    """One canary's chapter of the report, with its verdict."""
    stable, canary = facts[STABLE.name], facts[name]
    step, kernel = (
        estimate(crossover_table(blocks, kind, 2), kind, settings())
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
    void = void_reasons(blocks)
    bound = math.log(stable.bytes_ratio / canary.bytes_ratio)
    validity = Validity(
        deadline_blocks=len(blocks),
        seen_blocks=len(blocks),
        block_seconds=2.0,
        void_share=len(void) / len(blocks),
        void_reasons=void,
        config_differences=evidence.differences(stable, canary),
        config_digest=config_digest(POLICY, {"stable": stable.policy, "canary": canary.policy}),
    )
    quality = finding(answers)
    judgement = judge(
        POLICY, step, kernel, quality, validity, settings=settings(), byte_bound=bound
    )
    return data.Chapter(
        title=TITLES.get(name, name),
        note="GPT-OSS-20B's shape, all layers and experts, seeded MXFP4 weights; full CUDA graphs; "
        "steps are timed as forward windows.",
        stable=_sheet(stable),
        canary=_sheet(canary),
        policy=POLICY,
        judgement=judgement,
        step=step,
        kernel=kernel,
        quality=quality,
        dots="one crossover pair: two blocks with the arms in opposite order",
        byte_bound=bound,
    )


def _sheet(arm: evidence.ArmFacts) -> data.ArmSheet:
    found = versions()
    return data.ArmSheet(
        name=arm.name,
        policy=arm.policy,
        pads=(("raw", arm.raw), ("vLLM's own", arm.upstream), ("sent", arm.sent)),
        neurons_lost=arm.lost_neurons,
        neurons_live=arm.live_neurons,
        bytes_ratio=arm.bytes_ratio,
        versions=(
            ("vLLM", arm.vllm),
            ("AITER", arm.aiter),
            ("torch", str(found["torch"])),
            ("moe-serve", str(found["moe-serve"])),
        ),
        environment=(("MOE_SERVE_PADDING", arm.policy),),
        flags=(f"{arm.intercepted_calls} calls went through the plugin",),
    )


def speedup(found: Estimate | NoEstimate) -> dict[str, Any]:
    """Ratio and its interval; the reason where there is none."""
    if isinstance(found, NoEstimate):
        return {"reason": found.reason}
    return {
        "speedup": found.speedup,
        "low": math.exp(found.lo),
        "high": math.exp(found.hi),
        "pairs": found.blocks,
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
    found: Mapping[str, data.Chapter],
    facts: Mapping[str, evidence.ArmFacts],
    answers: Mapping[str, Any],
    commands: Sequence[str],
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
        chapters=tuple(found.values()),
        machine=(
            ("GPU", device.name),
            ("GPU memory", f"{device.total_memory / 2**30:.0f} GiB"),
            ("processor cores", str(os.cpu_count())),
            ("arms", ", ".join(facts)),
        ),
        not_proven=NOT_PROVEN,
        seeds=(("model", "0"), ("answers compared", ", ".join(answers))),
        commands=tuple(text.replace(str(place.WORK), "$WORK") for text in commands),
    )
    folder = place.WORK / "report"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "index.html"
    target.write_text(page(report_data), "utf-8")
    (folder / "summary.md").write_text(summary(report_data), "utf-8")
    verdicts: dict[str, Judgement] = {name: each.judgement for name, each in found.items()}
    (folder / "verdicts.json").write_text(
        json.dumps({name: each.to_json() for name, each in verdicts.items()}, indent=1) + "\n",
        "utf-8",
    )
    return target
