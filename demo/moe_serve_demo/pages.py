"""Turn a story's outcomes into the report's pages."""

import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path

from moe_serve.report import data
from moe_serve.report.page import page
from moe_serve.report.summary import summary
from moe_serve_demo import host
from moe_serve_demo.evidence import ArmFacts
from moe_serve_demo.settings import PROMPT_SEED, DemoSettings
from moe_serve_demo.story import POLICY, ScenarioOutcome, Story

NOT_PROVEN = (
    "No MI355X took part. What AMD's kernels skip was read in AITER's and composable_kernel's "
    "source and is emulated as read.",
    "The gain in percent is this CPU's: it shows that time follows the bytes, not what a GPU "
    "gains.",
    "The model's weights are random, except in the story tp8, whose model has learned small exact "
    "tasks. A comparison of random ones shows whether two arms answer alike, not whether the "
    "answers are good.",
    "Eager mode on one process: no graphs, no tensor parallelism, no MXFP4 arithmetic.",
    "One start of each server: how far two starts of equal software lie apart is not in the "
    "interval. A production comparison takes it from an A/A run.",
)


def write_report(settings: DemoSettings, story: Story, outcomes: Sequence[ScenarioOutcome]) -> Path:
    """Write the page, its Markdown summary and the verdicts' JSON; returns the page's path."""
    report = report_data(settings, story, outcomes)
    settings.report.mkdir(parents=True, exist_ok=True)
    target = settings.report / "index.html"
    target.write_text(page(report), "utf-8")
    (settings.report / "summary.md").write_text(summary(report), "utf-8")
    verdicts = {outcome.chapter.name: outcome.judgement.to_json() for outcome in outcomes}
    (settings.report / "verdicts.json").write_text(json.dumps(verdicts, indent=2) + "\n", "utf-8")
    return target


def report_data(
    settings: DemoSettings, story: Story, outcomes: Sequence[ScenarioOutcome]
) -> data.ReportData:
    """All that the page shows."""
    now = datetime.datetime.now(datetime.UTC)
    plan = settings.plan
    return data.ReportData(
        title="moe-serve demo",
        created=now.strftime("%Y-%m-%d %H:%M UTC"),
        note="Two real vLLM servers on one CPU. AITER's fused MoE is emulated below vLLM's own "
        "code; every number was measured in this run.",
        chapters=tuple(_chapter(story, outcome) for outcome in outcomes),
        machine=_machine(story),
        calibration=story.calibration,
        not_proven=NOT_PROVEN,
        seeds=(
            ("model", "0"),
            ("load's prompts", str(PROMPT_SEED)),
            (
                "blocks",
                f"{plan.blocks} at most, {plan.block_seconds:g} s each, cores swapped",
            ),
        ),
        commands=tuple(" ".join(server.command()) for server in story.servers),
    )


def _chapter(story: Story, outcome: ScenarioOutcome) -> data.Chapter:
    return data.Chapter(
        title=outcome.chapter.title,
        note=outcome.chapter.note,
        stable=_sheet(story, outcome.stable),
        canary=_sheet(story, outcome.canary),
        policy=POLICY,
        judgement=outcome.judgement,
        step=outcome.step,
        kernel=outcome.kernel,
        quality=outcome.quality,
        dots="one crossover pair: two blocks with the arms' cores swapped",
        byte_bound=outcome.byte_bound,
        exam=outcome.exam,
    )


def _sheet(story: Story, arm: ArmFacts) -> data.ArmSheet:
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
            ("torch", story.versions["torch"]),
            ("moe-serve", story.versions["moe-serve"]),
        ),
        environment=(
            ("MOE_SERVE_PADDING", arm.policy),
            ("MOE_SERVE_MAX_NEURON_LOSS", f"{arm.max_neuron_loss:g}"),
        ),
        flags=(f"{arm.intercepted_calls} calls went through the plugin before the measurement",),
    )


def _machine(story: Story) -> data.Facts:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        ("processor", model),
        ("cores used", ", ".join(map(str, story.cores))),
        ("memory free at the start", f"{story.free_memory / host.GIB:.0f} GiB"),
        ("kernel", platform.release()),
        ("Python", story.versions["python"]),
    )
