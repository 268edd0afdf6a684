"""The quality gate's own errors, by simulation of its real decisions.

    python benchmarks/quality_errors.py --output benchmarks/results/quality_errors.json

Mode `identical`: 8 cells that share their prompts, 256 new prompts a round, 8 rounds; a prompt's
excess divergence has a standard deviation of 0.02 nats a token, half of its variance shared by the
cells. Mode `non-inferior`: 1,319 items, 6 % of them discordant. Every count has its exact 95 %
interval (Clopper-Pearson).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta  # type: ignore[import-untyped]  # it ships no types

from moe_serve.canary.quality.cells import Cell, CellRound, Path, Score
from moe_serve.canary.quality.divergence import Position, divergence
from moe_serve.canary.quality.identical import IdenticalResult, Plan, decide
from moe_serve.canary.quality.noninferior import TaskPlan, harmed
from moe_serve.canary.quality.noninferior import decide as decide_task
from moe_serve.canary.quality.noninferior import paired
from moe_serve.canary.quality.paired import power
from moe_serve.canary.quality.result import Outcome

CELLS = tuple(Cell(path, size) for path in Path for size in (1, 4, 16, 64))
PLAN = Plan(cells=CELLS, rounds=8)
PROMPTS, SPREAD, SHARED = 256, 0.02, 0.5
Excess = NDArray[np.float64]  # [prompts, cells], nats a token
Draw = Callable[[np.random.Generator], Excess]


def normal(shift: Excess, spread: float = SPREAD, prompts: int = PROMPTS) -> Draw:
    def draw(source: np.random.Generator) -> Excess:
        common = source.normal(0, spread * SHARED**0.5, (prompts, 1))
        own = source.normal(0, spread * (1 - SHARED) ** 0.5, (prompts, len(CELLS)))
        return shift + common + own

    return draw


def skewed(shift: Excess) -> Draw:
    """The same mean and spread, but as divergences are: most near zero, a few far above it."""

    def draw(source: np.random.Generator) -> Excess:
        heavy = source.lognormal(0, 1, (PROMPTS, len(CELLS)))
        return shift + SPREAD * (heavy - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)

    return draw


def concentrated(share: float, mean: float) -> Draw:
    """A loss that meets one prompt in 1 / share, in every cell, and no other."""

    def draw(source: np.random.Generator) -> Excess:
        hit = source.random((PROMPTS, 1)) < share
        noise = source.normal(0, 0.002, (PROMPTS, len(CELLS)))
        return np.where(hit, mean / share, 0.0) + noise

    return draw


def rounding(size: float) -> Draw:
    """A lossless kernel whose log-probabilities are off by `size` nats, through the estimator."""
    vocabulary, tokens = 64, 32

    def draw(source: np.random.Generator) -> Excess:
        logits = source.normal(0, 2.5, (PROMPTS, tokens, vocabulary))
        gold = _log_softmax(logits)
        arms = [_log_softmax(gold + source.normal(0, size, gold.shape)) for _ in range(2)]
        chosen = [[int(source.choice(vocabulary, p=np.exp(at))) for at in row] for row in gold]
        found = np.empty(PROMPTS)
        for prompt in range(PROMPTS):
            apart = [
                divergence(_position(gold[prompt, at], token), _position(arm[prompt, at], token),
                           sampled=True) * sign
                for at, token in enumerate(chosen[prompt])
                for arm, sign in zip(arms, (-1, 1), strict=True)
            ]
            found[prompt] = sum(apart) / tokens
        return np.repeat(found[:, None], len(CELLS), axis=1)

    return draw


def _log_softmax(logits: Excess) -> Excess:
    found: Excess = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return found


def _position(values: Excess, token: int) -> Position:
    best = np.argsort(-values)[:20]
    return Position(token, float(values[token]), {int(at): float(values[at]) for at in best})


def identical(draw: Draw, runs: int, seed: int, plan: Plan = PLAN) -> dict[str, Any]:
    """So many whole runs, each until it is decided; through `decide` itself."""
    source = np.random.default_rng(seed)
    outcomes, taken = dict.fromkeys(Outcome, 0), list[int]()
    for _ in range(runs):
        rounds: list[list[CellRound]] = []
        while True:
            rounds.append(_round(len(rounds), draw(source)))
            made = decide(plan, rounds)
            assert isinstance(made, IdenticalResult)
            if made.outcome is not Outcome.UNDECIDED or len(rounds) == plan.rounds:
                break
        outcomes[made.outcome] += 1
        if made.outcome is not Outcome.UNDECIDED:
            taken.append(len(rounds))
    return {
        "runs": runs,
        **{str(name): _rate(count, runs) for name, count in outcomes.items()},
        "rounds_median": float(np.median(taken)) if taken else None,
        "rounds_p90": float(np.quantile(taken, 0.9)) if taken else None,
    }
