"""`docs/benchmarks.md`: what real vLLM showed on a GPU, from `gpu.h200.json`."""

from collections.abc import Iterator, Mapping
from typing import Any

Found = Mapping[str, Any]

# What each stage held against the witness, by the name of its part.
_SITUATIONS = (
    ("counts", "decode", "decode at batch 1, 5, 8 and 40, asynchronous scheduling"),
    ("counts", "chunked prefill", "chunked prefill: 6 prompts of 700 tokens, 256 per step"),
    ("counts", "prefix cache", "the same prompts again, from the prefix cache"),
    ("counts", "second capture", "after a second capture of the graphs"),
    ("piecewise", "decode", "FULL_AND_PIECEWISE with torch.compile: decode"),
    ("piecewise", "mixed", "FULL_AND_PIECEWISE with torch.compile: prefill and decode"),
    ("sleeping", "decode", "after sleep and wake"),
    ("second_runner", "decode", "vLLM's second model runner"),
)


def gpu_section(stages: Mapping[str, Found]) -> list[str]:
    """The section's lines; `stages` are the documents that the stages left."""
    return [
        *_head(stages["machine"]["found"]),
        *_speed(stages["speed"]["found"]),
        *_truth(stages["truth"]["found"]),
        *_counts(stages),
        *_cost(stages["cost"]["found"]),
        *_chain(stages["chain"]["found"]),
        *_gate(stages["gate"]["found"]),
    ]


def _head(machine: Found) -> list[str]:
    versions = machine["versions"]
    return [
        "## Real vLLM inside CUDA graphs",
        "",
        f"`make gpu-bundle` packs vLLM {versions['vllm']} for a GPU machine without a network, and "
        "`make test-gpu` and `make demo-gpu` run there. Measured on one "
        f"{machine['device']} with PyTorch {versions['torch']} and Triton {versions['triton']}; a "
        f"copy moves {machine['copy_bytes_per_second'] / 1e12:.2f} TB/s. vLLM takes its own code "
        "path for AITER (MXFP4 weights, 2880 padded to 3072); below it, AITER's fused MoE is "
        "emulated in Triton with the skipping rules of CK-tile. The tests on the device hold this "
        "kernel against the CPU's: equal results for skipped rows and columns, for columns that "
        "are never written (NaN) and for weights that must not be read.",
        "",
        "The tables come from several runs of the stages; the last run of `make demo-gpu` ended "
        "with exit code 1, for the reason given under *The whole chain*.",
        "",
    ]


def _speed(found: Found) -> list[str]:
    verdict = "holds" if found["met"] else "does not hold"
    return [
        "### Kernel time and bytes",
        "",
        "One layer, 2880 x 2880 padded to 3072 x 3072, top 4, in a CUDA graph. Speed-up over pads "
        "of zero, in brackets the ratio of the fetched weight bytes. The launch shape is the "
        "fastest with pads of zero and equal for all pads. *Zero again* is the noise floor. vLLM's "
        "own Triton kernel computes on 2880 x 2880 and includes the router's choice.",
        "",
        "| model | batch | experts hit | zero, µs | zero again | aligned | upstream "
        "| vLLM's own, µs |",
        "|---|---|---|---|---|---|---|---|",
        *(_speed_row(row) for row in found["rows"]),
        "",
        f"The goal, at most {found['goal'] * 100:.0f} points between speed-up and bytes at batch "
        f"16 to 64, {verdict}: the furthest row is {found['furthest_off'] * 100:+.1f} points off. "
        "The likely reasons, not shown by counters: a tile is 128 rows wide, so half of the last "
        "tile of 2880 rows is computed though it is not fetched; and the number of tiles per "
        "multiprocessor changes in whole steps, which also makes speed-ups above the bytes.",
        "",
    ]


def _speed_row(row: Found) -> str:
    times, gains, ratio = row["microseconds"], row["speedup"], row["bytes"]
    return (
        f"| {row['shape']} | {row['batch']} | {row['experts_hit']} | {times['zero']:.1f} "
        f"| {gains['zero again']:.3f} "
        f"| {gains['aligned']:.3f} ({ratio['aligned']:.3f}) "
        f"| {gains['upstream']:.3f} ({ratio['upstream']:.3f}) "
        f"| {times[_OWN]:.1f} |"
    )


_OWN = "vLLM's Triton"


def _truth(found: Found) -> list[str]:
    return [
        "### Markers against the profiler",
        "",
        "The same replays of vLLM's own decode graphs (4 layers, all marked), sum over the layers "
        "of the markers' means and of the profiler's time stamps (CUPTI) from start marker to stop "
        f"marker. The goal is {found['goal']:.1%}; the largest difference is "
        f"{found['furthest_off']:.3%}. *Between* leaves the start marker's own run time out.",
        "",
        "| batch | replays | markers, µs | profiler, µs | ratio | over the time between |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['batch']} | {row['replays']} | {row['marker_us']:.1f} "
            f"| {row['profiler_us']:.1f} | {row['marker_over_profiler']:.5f} "
            f"| {row['marker_over_gap']:.4f} |"
            for row in found["rows"]
        ),
        "",
    ]


def _counts(stages: Mapping[str, Found]) -> list[str]:
    return [
        "### What the plugin counts",
        "",
        "A witness outside of the plugin notes each served step; every sampled layer must be "
        "counted exactly once per step, in the right mode, phase and batch size. Warm-up, capture "
        f"and {stages['counts']['found']['dummy batches']} dummy batches count nothing.",
        "",
        "| situation | steps | counted in |",
        "|---|---|---|",
        *(_counts_row(text, stages[stage]["found"][part]) for stage, part, text in _SITUATIONS),
        _counts_row("a drafter with 2 tokens", stages["speculative"]["found"]),
        "",
        "All counts were the expected ones. No call of the drafter's own experts was counted; the "
        "reason is not known yet.",
        "",
    ]


def _counts_row(text: str, part: Found) -> str:
    where = [f"{key.strip('()').replace(chr(39), '')}: {n}" for key, n in part["counts"].items()]
    return f"| {text} | {part['steps']} | {'; '.join(where).lower()} |"


def _cost(found: Found) -> list[str]:
    return [
        "### What markers cost a decode step",
        "",
        "GPT-OSS-20B's shape (24 layers), markers around the first and the last MoE layer. Three "
        "engines replay their own decode graphs in turn: without markers, with them, without them "
        "again. Differences from the first, with a bootstrap's 95 % interval. Two engines without "
        "markers differ by as much as the markers cost, so this run cannot resolve it. The stage "
        "now compares several captures of one engine, and empty kernels with markers; a result of "
        "that is not recorded yet.",
        "",
        "| batch | step, µs | on, µs | on, % | off again, % |",
        "|---|---|---|---|---|",
        *(
            f"| {row['batch']} | {row['step_us']:.0f} | {row['on']['microseconds']:+.1f} "
            f"({row['on']['low']:+.1f} to {row['on']['high']:+.1f}) | {row['on']['percent']:+.2f} "
            f"| {row['off again']['percent']:+.2f} |"
            for row in found["rows"]
        ),
        "",
        f"The goal, {found['goal']:.2%} of a step for two layers, "
        f"{'holds' if found['met'] else 'is missed'}: at most {found['worst']:.2%}.",
        "",
    ]


def _chain(found: Found) -> list[str]:
    return [
        "### The whole chain",
        "",
        "Four servers of GPT-OSS-20B's shape (24 layers, 32 experts, seeded weights made on the "
        "device) on one GPU, full decode graphs, under load over HTTP in turn at batch 16 and 64; "
        "exporter, scrape, `quality probe`, judge, report. All exporters were ready and all proofs "
        "passed. *Window* is the time from the first sampled layer to the last.",
        "",
        "| canary | bytes | kernel | window | tokens/s at 16, 64 | answers | verdict |",
        "|---|---|---|---|---|---|---|",
        *_chain_rows(found),
        "",
        "Speed is as expected: in kernel and window `aligned` gains, `upstream` gains more, equal "
        "arms gain nothing. "
        "The answers are not: this seeded model amplifies rounding so much that a server differs "
        "from its own earlier answers by about 2 nats per token, and at 16 requests in flight the "
        "comparison failed two equal servers (top-1 agreement) and did not decide for `aligned`, "
        "whose answers are bit-equal at concurrency 1. Therefore `aligned` was not promoted here. "
        "A seeded model of this depth cannot show that answers are equal; a learned one can, see "
        "the next table.",
        "",
    ]


def _chain_rows(found: Found) -> Iterator[str]:
    for name, each in found["canaries"].items():
        rates = found["tokens_per_second"][name]
        yield (
            f"| {name} | {each['bytes']:.3f} | {_interval(each['kernel'])} "
            f"| {_interval(each['window'])} | {rates['16']:,.0f}, {rates['64']:,.0f} "
            f"| {each['answers']['outcome']} | {each['verdict']} |"
        )


def _interval(found: Found) -> str:
    return f"{found['speedup']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _gate(found: Found) -> list[str]:
    return [
        "### The gate on a learned model",
        "",
        "The model that has learned arithmetic and formats, in MXFP4, served over HTTP; 32 sampled "
        "and 16 greedy tokens per text, concurrency 1 and 16, the servers under other load. "
        "*Excess* is the largest mean difference of a cell, in nats per token (0.005 are allowed).",
        "",
        "| canary | excess | texts per arm | seconds | right answers, gold and canary |",
        "|---|---|---|---|---|",
        *(_gate_row(row) for row in found["rows"]),
        "",
        "The criterion separates them by a factor of 400: another kernel stays 15 times below the "
        "limit, one layer without 192 neurons lies 27 times above it. In this run three canaries "
        "were probed at a time against one stable server, so the counters of how answers end "
        "differed between the arms and failed every canary, equal arms too: a probed pod must have "
        "no other traffic. The stages now probe one canary per stable server; a run with that is "
        "not recorded yet.",
        "",
    ]


def _gate_row(row: Found) -> str:
    texts, marks = row["identical"], row["non_inferior"]["canary"]
    return (
        f"| {row['title']} | {texts['largest_excess']:.2g} | {texts['requests_an_arm']} "
        f"| {texts['seconds']:.0f} | {marks['baseline']:.1%}, {marks['arm']:.1%} "
        f"of {marks['items']} |"
    )
