"""Synthetic runs whose truth is known: blocks, answers, and a whole report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.boundary import InterimAnalyses
from moe_serve.analysis.estimate import Estimate, NoEstimate
from moe_serve.analysis.estimator import EstimatorSettings, estimate
from moe_serve.analysis.judge import judge
from moe_serve.analysis.noise import Design, PodVariation
from moe_serve.analysis.observations import crossover_table
from moe_serve.analysis.policy import Policy, config_digest
from moe_serve.analysis.series import (
    ArmBlock,
    Cell,
    CellKind,
    CellTotal,
    PairedBlock,
    Placement,
    Void,
    paired_block,
    void_reasons,
)
from moe_serve.analysis.validity import Validity
from moe_serve.quality.answers import Answer, AnswerKind
from moe_serve.quality.comparison import compare
from moe_serve.quality.finding import finding
from moe_serve.quality.result import NoQuality, QualityResult
from moe_serve.report.data import ArmSheet, CalibrationSummary, Chapter, Event, ReportData

TERMS = EstimatorSettings(
    interim_analyses=InterimAnalyses(first=6, last=24),
    pod_variation=PodVariation(),
    design=Design.CROSSOVER,
)
BUCKETS = (2, 4, 8)
SECONDS = {CellKind.KERNEL: 0.004, CellKind.STEP: 0.03}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A reading of one arm's cumulative counters."""

    generation: int
    totals: Mapping[Cell, tuple[int, float]]


def cells(kind: CellKind, buckets: Sequence[int] = BUCKETS) -> tuple[Cell, ...]:
    layers = (0, 1) if kind is CellKind.KERNEL else (None,)
    return tuple(Cell(kind=kind, layer=layer, bucket=b) for layer in layers for b in buckets)


def arm_block(
    source: np.random.Generator, gains: dict[CellKind, float], core: float, noise: float
) -> ArmBlock:
    """One arm's block: `gains` and `core` are ratios of rates, `noise` a log SD."""
    totals = {}
    for kind, gain in gains.items():
        for cell in cells(kind):
            count = 60
            seconds = count * SECONDS[kind] * (1 + cell.bucket / 8) / gain / core
            seconds *= math.exp(noise * float(source.standard_normal()))
            totals[cell] = CellTotal(count, seconds)
    return ArmBlock(totals=totals)


def run(
    *,
    kernel: float = 1.0,
    step: float = 1.0,
    blocks: int = 18,
    noise: float = 0.01,
    core: float = 1.07,
    void: Sequence[int] = (),
    seed: int = 0,
) -> tuple[PairedBlock, ...]:
    """A run with known ratios; the second core is `core` times as fast as the first."""
    source = np.random.default_rng(seed)
    made = []
    for index in range(blocks):
        placement = (Placement.AB, Placement.BA)[index % 2]
        speeds = (1.0, core) if placement is Placement.AB else (core, 1.0)
        even = dict.fromkeys(CellKind, 1.0)
        gains = {CellKind.KERNEL: kernel, CellKind.STEP: step}
        stable = arm_block(source, even, speeds[0], noise)
        canary = arm_block(source, gains, speeds[1], noise)
        made.append(
            paired_block(
                index=index,
                start_seconds=100 + 4.5 * index,
                placement=placement,
                stable=stable,
                canary=Void("the process was restarted within the block")
                if index in void
                else canary,
            )
        )
    return tuple(made)


def answers(
    *, shift: float = 0.0, noise: float = 0.0, diverge: float = 0.0, seed: int = 1
) -> tuple[Answer, ...]:
    """24 scored texts and 8 greedy ones at two concurrencies; `shift` and `noise` in nats."""
    texts = np.random.default_rng(99)
    source = np.random.default_rng(seed)
    made = []
    for kind, count, length, concurrencies in (
        (AnswerKind.TEACHER_FORCED, 24, 39, (1,)),
        (AnswerKind.GREEDY, 8, 24, (2, 8)),
    ):
        for number in range(count):
            tokens = texts.integers(3, 999, length)
            base = -texts.exponential(1.0, length)
            for concurrency in concurrencies:
                own = tokens.copy()
                if kind is AnswerKind.GREEDY and source.random() < diverge:
                    own[int(source.integers(2, length)) :] += 1
                moved = base + shift * texts.choice([-1, 1], length)
                moved = moved + noise * source.standard_normal(length)
                scored = kind is AnswerKind.TEACHER_FORCED
                made.append(
                    Answer(
                        prompt_id=f"{'scored' if scored else 'continued'}-{number}",
                        concurrency=concurrency,
                        kind=kind,
                        token_ids=tuple(int(token) for token in own),
                        logprobs=tuple(float(value) for value in moved),
                        top1=tuple(int(token) for token in own) if scored else None,
                    )
                )
    return tuple(made)


def sheet(name: str, policy: str, *, sent: str, lost: int = 0, ratio: float = 1.0) -> ArmSheet:
    return ArmSheet(
        name=name,
        policy=policy,
        pads=(("raw", "192/192"), ("sent", sent), ("effective, cktile decode", sent)),
        neurons_lost=lost,
        neurons_live=2880,
        bytes_ratio=ratio,
        versions=(("vLLM", "0.22.1"), ("AITER", "0.1.15 (emulated)")),
        environment=(("MOE_SERVE_PADDING", policy), ("OMP_NUM_THREADS", "1")),
        flags=("--max-num-seqs", "8", "--enforce-eager"),
    )


def chapter(
    title: str,
    blocks: Sequence[PairedBlock],
    quality: QualityResult | NoQuality,
    canary: ArmSheet,
    *,
    byte_bound: float | None = math.log(1.138),
    policy: Policy | None = None,
    note: str = "Stable skips no padding.",
) -> Chapter:
    policy = policy or Policy()
    stable = sheet("stable", "zero", sent="0/0", ratio=1.138)
    step, kernel = estimates(blocks)
    void = void_reasons(blocks)
    validity = Validity(
        deadline_blocks=18,
        seen_blocks=len(blocks),
        block_seconds=9.0,
        void_share=len(void) / len(blocks) if blocks else None,
        void_reasons=void,
        config_digest=config_digest(policy, {"canary": canary.policy}),
    )
    return Chapter(
        title=title,
        note=note,
        stable=stable,
        canary=canary,
        policy=policy,
        judgement=judge(
            policy,
            step,
            kernel,
            finding(quality.to_json()),
            validity,
            settings=TERMS,
            byte_bound=byte_bound,
        ),
        step=step,
        kernel=kernel,
        quality=quality,
        dots="one crossover pair",
        byte_bound=byte_bound,
        timeline=(Event(at_seconds=0, text="both arms ready"),),
    )


def report() -> ReportData:
    """Three comparisons: one to promote, one that is fast and wrong, one without a gain."""
    same = compare(answers(), answers(noise=4e-4, seed=2), answers(noise=3e-4, seed=3))
    wrong = compare(
        answers(), answers(shift=0.09, noise=0.02, diverge=0.8), answers(noise=3e-4, seed=3)
    )
    return ReportData(
        title="Padding canaries on two emulated workers",
        created="2026-11-24 03:30 UTC",
        note="Real vLLM servers, an emulated MoE kernel, two CPU cores that the arms swap every "
        "block.",
        chapters=(
            chapter(
                "Lossless pads: skip what is padding, and only that",
                run(kernel=1.118, step=1.082, void=(7,)),
                same,
                sheet("canary-aligned", "aligned", sent="192/128", ratio=1.013),
            ),
            chapter(
                "vLLM's own pads at TP=1: fast, and wrong",
                run(kernel=1.2, step=1.13, seed=5),
                wrong,
                sheet("canary-upstream", "upstream", sent="192/384", lost=192, ratio=0.95),
                byte_bound=math.log(1.138 / 0.95),
            ),
            chapter(
                "No change: both arms send the same pads",
                run(seed=9, noise=0.06),
                NoQuality(reason="no prompt was answered by both arms"),
                sheet("canary-same", "zero", sent="0/0", ratio=1.138),
                byte_bound=0.0,
            ),
        ),
        machine=(("processor", "2 cores"), ("memory", "24 GiB"), ("Python", "3.11.7")),
        calibration=(
            CalibrationSummary(
                label="aligned against zero", bytes_ratio=1.123, seconds_ratio=1.131
            ),
            CalibrationSummary(
                label="upstream against zero", bytes_ratio=1.198, seconds_ratio=1.21
            ),
        ),
        not_proven=(
            "AMD hardware: the kernel is emulated on a CPU; its time follows its bytes by design.",
            "Error rates under repeated looks: this judge looks once.",
        ),
        seeds=(("prompts", "7"), ("weights", "1234")),
        commands=("make demo", "moe-serve canary report run/ --output report.html"),
    )


def estimates(blocks: Sequence[PairedBlock]) -> tuple[Estimate | NoEstimate, ...]:
    return tuple(
        estimate(crossover_table(blocks, kind, 30), kind, TERMS)
        for kind in (CellKind.STEP, CellKind.KERNEL)
    )
