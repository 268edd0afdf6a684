"""`docs/quality.md`: what the gate decides, and its errors from `benchmarks/results`."""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def quality_page(note: str) -> str:
    """The page; figures come from `benchmarks/results` alone."""
    errors, servers = _load("quality_errors.json"), _load("quality_servers.json")
    return "\n".join(
        [
            *_head(note),
            *_identical(errors),
            *_servers(servers),
            *_non_inferior(errors),
            *_faults(_load("quality_faults.json")),
            *_limits(),
        ]
    )


def _load(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / name).read_text("utf-8")))


def _head(note: str) -> list[str]:
    return [
        "# The same answers",
        "",
        note,
        "",
        "`moe-serve quality probe --stable-url URL --canary-url URL` exits with 0 if sameness was "
        "shown, 10 if it was refuted, "
        " 20 if neither, 2 for wrong usage or a server that does not answer.",
        "",
        "```text",
        "moe-serve quality record --server TRUSTED --file gold.jsonl       # once, never again",
        "moe-serve quality probe --stable-url URL --canary-url URL --stable-exporter URL "
        "--canary-exporter URL --gold gold.jsonl",
        "moe-serve quality record --mode non-inferior --server TRUSTED --task gsm8k "
        "--task-file test.jsonl --file gold.json",
        "moe-serve quality record --mode non-inferior --server KNOWN_BAD --task gsm8k "
        "--task-file test.jsonl --file bad.json",
        "moe-serve quality probe --mode non-inferior --stable-url URL --canary-url URL "
        "--stable-exporter URL --canary-exporter URL --task gsm8k --task-file test.jsonl "
        "--gold gold.json --known-bad bad.json",
        "```",
        "",
        "## Whose answers they are",
        "",
        "vLLM's own port tells nothing of a server's configuration; the exporter beside it does. "
        "`--stable-exporter` and `--canary-exporter` (as `http://POD:9400/metrics`) are asked "
        "eight times before the first text and eight times after the last, each time over a new "
        "connection. The result has what they said of each arm: versions, kernel, pads, policy, "
        "and the `worker_config_digest` of everything else. Pods behind one address that are not "
        "alike, or that change while they are probed, end the probe in one line. Of two unlike "
        "pods that "
        "share the connections evenly, one hides from it in 1 of 32,768 runs. Which server an "
        "exporter belongs to, it takes from you.",
        "",
        "The judge takes a pass only where all judged pods say the same. A pass without exporters "
        "is *not known to be of these pods* and promotes nothing; a failure without them still "
        "rolls back, and says so.",
        "",
        "## At which sizes",
        "",
        "Each batch size can take another kernel. `--concurrency 1,4,16,64,traffic` adds the size "
        "that stable's exporter, or `--traffic-exporter`, has the most busy seconds for since its "
        "server began: whole steps, else forward passes, without those that hold prefill. A "
        "graph's size is the one that it was captured for; above 64 eager rows it is the power of "
        "two above. It is a number of rows: with a drafter a request has several. The probed "
        "pods are dark, so name the exporter of one that serves. No such time is one line and no "
        "probe.",
        "",
    ]


def _identical(found: dict[str, Any]) -> list[str]:
    budget = found["budget"]
    return [
        "## Mode `identical`",
        "",
        "The reference is a set of texts that a trusted server sampled once, with its best "
        "log-probabilities at each position. In every cell (prefill or decode, at a concurrency) "
        "both arms are asked for the same texts at the same moment; what counts is how much "
        "farther the canary's distribution lies from the reference than stable's: a "
        "Kullback-Leibler divergence, in nats a token, a prompt being one cluster. Rounding moves "
        "it by next to nothing, lost weights by much. A cell passes when its upper bound lies "
        f"below {found['epsilon_nats']:g}; all cells must. One lower bound above it fails the "
        "canary, and so do a value that is not finite and top-1 agreement that is 5 points lower.",
        "",
        f"The whole level is {budget['alpha']:g} over {budget['rounds']} rounds and "
        f"{budget['cells']} cells: each upper bound keeps {budget['alpha_pass_each_cell']:g} over "
        "all rounds, as a pass needs every cell; each lower bound has "
        f"{budget['alpha_fail_each_cell_and_kind']:g} (half for divergence, half for top-1, split "
        f"over cells). The quantiles for all rounds at once are {budget['quantile_pass']:.2f} and "
        f"{budget['quantile_fail']:.2f}.",
        "",
        f"`python benchmarks/quality_errors.py --output FILE`: {found['prompts']} new prompts a "
        "round and cell, 0.02 nats a token between prompts, half of the variance shared by the "
        "cells; in brackets the exact 95 % interval. *At .005* a pass is an error, and so is a "
        "failure.",
        "",
        "| true excess, nats a token | passed, % | failed, % | rounds, median | 90 % |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {_share(row['passed'])} | {_share(row['failed'])} "
            f"| {_rounds(row['rounds_median'])} | {_rounds(row['rounds_p90'])} |"
            for name, row in found["identical"].items()
        ),
        "",
        f"Each row has {min(row['runs'] for row in found['identical'].values())} runs. *Lossless* "
        "is the negative control, through the estimator itself: logits with normal noise of this "
        "size, a quarter larger in the canary than in stable.",
        "",
    ]


def _servers(found: dict[str, Any]) -> list[str]:
    lines = [
        "## On real servers",
        "",
        "Two vLLM servers for CPU over the emulated kernel, a core each, the demo's seeded model "
        "(2880 neurons), stable without skipped padding; 64 texts a round of 32 sampled and 16 "
        "greedy tokens, concurrency 1, 4, 16 and 64. The machine had other work to do at the "
        "time, so the seconds are an upper bound; they hold the sampling of the texts.",
        "",
        "| canary | outcome | rounds | texts an arm | seconds | largest excess | its bounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [cell for cell in row["cells"] if cell["excess_nats"] is not None]
        worst = max(cells, key=lambda cell: float(cell["excess_nats"]))
        lines.append(
            f"| {name} | {row['outcome']} | {row['rounds']} | {row['requests_an_arm']} "
            f"| {row['seconds']:.0f} | {worst['excess_nats']:.2g} "
            f"| {worst['lower']:.2g} to {worst['upper']:.2g} |"
        )
    return [
        *lines,
        "",
        "A failure needs no more than the first cell that shows it, a pass needs all eight. Here "
        "the texts were sampled from stable itself; a rollout uses `--gold`.",
        "",
    ]


def _non_inferior(found: dict[str, Any]) -> list[str]:
    rows = found["non_inferior"]
    return [
        "## Mode `non-inferior`",
        "",
        "A task with exact answers, the canary against the gold's stored marks, item by item: it "
        "passes if the lower bound of Tango's interval (one-sided, 5 %) lies above minus the "
        "margin. Margin and items are fixed beforehand and the decision is made once, with all "
        "of them; the look at 250 items can only stop for harm. A saturated gold, or a harness "
        "that did not fail an arm known to be bad, leaves it undecided. Of 1,319 items, 6 % "
        "discordant:",
        "",
        "| case | passed, % | by the exact formula, % | stopped at 250 items, % |",
        "|---|---|---|---|",
        *(
            f"| {name} | {_share(row['passed'])} | {_percent(row['exact'])} "
            f"| {100 * row['stopped_early']['share']:.1f} |"
            for name, row in rows.items()
        ),
        "",
    ]


def _faults(found: dict[str, Any]) -> list[str]:
    return [
        "## Faults that it catches",
        "",
        "Real vLLM servers for CPU over the emulated kernel, with the two models that have learned "
        "the built-in tasks, against a sound server with pads `raw`. The faults are in the weights "
        "or in the kernel; every arm starts, and its `/health` is green. `identical`: 64 built-in "
        "texts of up to 32 sampled and 16 greedy tokens, prefill and decode at concurrency 1 and "
        f"8, at most 8 rounds. `non-inferior`: {found['items']:,} items of `arithmetic`, margin 2 "
        "points, an arm with swapped experts as the known bad one. Seconds hold both arms' "
        "answers, on two cores that had other work to do, at times nearly all of them.",
        "",
        "| fault | width | identical | texts an arm | s | non-inferior | right, stable and canary "
        "| items | s |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_fault, found["cases"]),
        "",
        "`192 of 2880` is the case of vLLM#42098 at TP=1: the two modes differ, rightly. The "
        "answers are not the same, and the task, which the model's spare neurons carry, is within "
        "its margin; with `non-inferior` an operator can promote it, and the report then says how "
        "many neurons the gain cost. The wide model was trained to spare neurons, so its 0 points "
        "say nothing of GPT-OSS-120B. A task sees a fault only where it needs what is broken: "
        "`identical` is the default for that reason.",
        "",
        "`python -m benchmarks.quality_faults --vllm-python .venv-vllm/bin/python --output FILE`",
        "",
    ]


def _fault(row: dict[str, Any]) -> str:
    texts, task = row["identical"], row["non-inferior"]
    arm = task.get("canary", {})
    right = f"{100 * arm['baseline']:.1f} %, {100 * arm['arm']:.1f} %" if arm else ""
    return (
        f"| {row['title']} | {row['width']} | {texts['outcome']} "
        f"| {texts.get('requests_an_arm', '')} | {texts['wall_seconds']:.0f} | {task['outcome']} "
        f"| {right} | {arm.get('items', '')} | {task['wall_seconds']:.0f} |"
    )


def _limits() -> list[str]:
    return [
        "## What it does not see",
        "",
        "- A loss that meets very few prompts: see the rows *all of it in 1 of 500 prompts*. A "
        "mean over prompts cannot know of what none of them met; more texts can.",
        "- Decode is compared along greedy texts up to their first different token, and only over "
        "the tokens that both arms name: that is never above the true divergence.",
        "- Without `--gold`, stable is its own reference: losses could add up over promotions.",
        "- The counters see NaN only where the server counts it (`VLLM_COMPUTE_NANS_IN_LOGITS=1`).",
        "",
    ]


def _share(found: dict[str, float]) -> str:
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{100 * found['share']:.1f} ({low:.1f} to {high:.1f})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _rounds(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"
