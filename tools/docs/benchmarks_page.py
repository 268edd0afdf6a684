"""`docs/benchmarks.md`: the stored results of `benchmarks/`, as tables."""

import json
from pathlib import Path
from typing import Any

from tools.docs.gpu_section import gpu_section

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def benchmarks_page(note: str) -> str:
    """The page; figures come from `benchmarks/results` alone."""
    markers = _load("marker_cost.h200.json"), _load("marker_cost.h200-before.json")
    gpu = gpu_section(_load("gpu.h200.json"))
    return "\n".join([*_head(note), *_markers(*markers), *gpu, *_scrape(_load("scrape.json"))])


def _load(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / name).read_text("utf-8")))


def _head(note: str) -> list[str]:
    return [
        "# Benchmarks",
        "",
        note,
        "",
        "Every table comes from one run, with both sides in it; the scripts and their results are "
        "in `benchmarks/`. Nothing here was measured on an MI355X: on AMD the markers are "
        "compiled for gfx950 and their instructions are checked, no more. An owner of one runs "
        "`python -m moe_serve.vllm_plugin.markers.selftest` and then the scripts below.",
        "",
    ]


def _markers(found: dict[str, Any], before: dict[str, Any]) -> list[str]:
    cost, nodes = found["cost"], found["cost"]["node_us"]
    step, two = cost["step_ms"], cost["rows"]["markers, 2 layers"]
    empty = cost["rows"]["empty nodes, 2 layers"]
    every = cost["rows"]["markers, 8 layers"]["microseconds"] / 8
    alone = found["calibration"]["pair_us"]
    lines = [
        "## What markers cost",
        "",
        f"`python benchmarks/marker_cost.py --output FILE` on one {found['device']}, PyTorch "
        f"{found['torch']}, Triton {found['triton']}. A graph of 8 layers, each two batched "
        f"products of the size of a GPT-OSS MoE layer with 32 experts, takes {step:.2f} ms. Each "
        "way of timing is a graph of its own; all are replayed in turn, in a random order each "
        "round, and the difference is from the plain graph of the same round (median, bootstrap's "
        "95 % interval). *None again* is the plain graph captured a second time: the noise floor.",
        "",
        "| way | µs a replay | 95 % | % of the step |",
        "|---|---|---|---|",
    ]
    for name, row in cost["rows"].items():
        interval = f"{row['low']:.1f} to {row['high']:.1f}" if "low" in row else ""
        lines.append(f"| {name} | {row['microseconds']:.1f} | {interval} | {row['percent']:.2f} |")
    return [
        *lines,
        "",
        f"A marker takes {nodes['marker']:.2f} µs, {nodes['ratio']:.2f} times an empty kernel in "
        f"its place ({nodes['empty']:.2f} µs); on another such machine an hour before, "
        f"{before['cost']['node_us']['ratio']:.2f} times. The goals were 1.3 times, and 0.15 % of "
        "a 3 ms step for two layers. Neither is met: even empty kernels around two layers take "
        f"{empty['percent']:.2f} %, and markers {two['percent']:.2f} %. Most of the difference is "
        "waiting for the markers' own words, which the layers' traffic has driven out of the "
        f"caches. For the same reason a pair in place, {every:.2f} µs, costs "
        f"{every / alone:.1f} times what it does in a graph of nothing else, {alone:.2f} µs, which "
        "is what a worker calibrates; so it counts each pair double against its budget.",
        "",
        "Graphs of nothing but one kind of kernel show what a sequence lock's fences would have "
        "cost (`docs/adr/0007`):",
        "",
        "| kernel | µs |",
        "|---|---|",
        *(f"| {name} | {took:.2f} |" for name, took in found["nodes alone, us"].items()),
        "",
        "## Whether they tell the truth",
        "",
        "Sum of the 8 layers' means over the time, between two events, of the same work without "
        "markers. *Bias* is what a pair measures with nothing in between; it is exported.",
        "",
        "| launched | rows an expert | means, µs | without markers, µs | ratio | less the bias |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['mode']} | {row['rows an expert']} | {row['sum of means us']:.1f} "
            f"| {row['without markers us']:.1f} | {row['ratio']:.4f} "
            f"| {row['ratio without bias']:.4f} |"
            for row in found["truth"]
        ),
        "",
        "The graphs of all three sizes were captured before any was replayed. The goal, 0.5 %, "
        "holds for every graph; eager launches leave gaps between kernels that belong to nobody.",
        "",
    ]


def _scrape(found: dict[str, Any]) -> list[str]:
    return [
        "## What a scrape costs",
        "",
        "`python benchmarks/scrape.py --output FILE` on two cores of a virtual machine: real "
        "processes asked in turn over loopback, 40 times. Between two scrapes a quarter of all "
        "slots change. The goals were 25 ms, 100 ms and 60 MB.",
        "",
        "| | series | median, ms | worst, ms | resident, MiB |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['series']} | {row['median_ms']:.1f} | {row['worst_ms']:.1f} "
            f"| {row['resident_mib']:.0f} |"
            for name, row in found.items()
        ),
        "",
    ]
