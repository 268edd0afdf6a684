"""The demo's report: the product's report of every chapter, and the machine that it ran on."""

import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moe_serve.report import comparison, data
from moe_serve.report.page import page
from moe_serve.report.summary import summary
from moe_serve_demo import host, measure, probing
from moe_serve_demo.demo import PROMPT_SEED, ChapterOutcome, Demo

NOT_PROVEN = (
    "AMD hardware: no MI355X took part. What AMD's kernels skip was read in AITER's and "
    "composable_kernel's source, and is emulated as read.",
    "A GPU's gain: the gain in percent is this CPU's, and shows that time follows the bytes.",
    "Good answers: the model's weights are random, except in the scenario tp8, whose model has "
    "learned small exact tasks. Random weights show whether two arms answer alike.",
    "Graphs, tensor parallelism and MXFP4 arithmetic: the servers run eagerly, in one process.",
    "The variation between two starts of equal servers: the policy declares 0.5 %; a comparison in "
    "production takes it from an A/A run.",
)


def write_report(demo: Demo, outcomes: Sequence[ChapterOutcome]) -> Path:
    """Write the HTML page, its Markdown summary and the verdicts; return the page's path."""
    report, folder = report_data(demo, outcomes), demo.settings.report
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page(report), "utf-8")
    (folder / "summary.md").write_text(summary(report), "utf-8")
    verdicts = {outcome.chapter.name: outcome.found.to_json() for outcome in outcomes}
    (folder / "verdicts.json").write_text(json.dumps(verdicts, indent=2) + "\n", "utf-8")
    return folder / "index.html"


def report_data(demo: Demo, outcomes: Sequence[ChapterOutcome]) -> data.ReportData:
    """The content of the report."""
    return data.ReportData(
        title="moe-serve demo",
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        note="Two real vLLM servers on one CPU. AITER's fused MoE is emulated below vLLM's own "
        "code; every number was measured in this run.",
        chapters=tuple(_chapter(outcome) for outcome in outcomes),
        machine=_machine(demo),
        calibration=demo.calibration,
        not_proven=NOT_PROVEN,
        seeds=(
            ("model", "0"),
            ("load's prompts", str(PROMPT_SEED)),
            ("probe's prompts", str(probing.SEED)),
            ("warm-up before the first block", f"{measure.WARM_UP_SECONDS:g} s"),
        ),
        commands=(
            *(" ".join(server.command()) for server in demo.servers),
            *(outcome.files.command for outcome in outcomes),
        ),
    )


def _chapter(outcome: ChapterOutcome) -> data.Chapter:
    found = comparison.chapter(outcome.history, outcome.found)
    return replace(
        found,
        title=outcome.chapter.title,
        note=f"{outcome.chapter.note} {found.note}",
        stable=replace(found.stable, name=outcome.chapter.stable.name),
        canary=replace(found.canary, name=outcome.chapter.canary.name),
        # Ratios of one MI355X say nothing about a CPU.
        published=(),
    )


def _machine(demo: Demo) -> data.Facts:
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
        ("cores used", ", ".join(map(str, demo.cores))),
        ("memory free at the start", f"{demo.free_memory / host.GIB:.0f} GiB"),
        ("kernel", platform.release()),
        ("Python", demo.versions["python"]),
    )
