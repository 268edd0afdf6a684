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

from moe_serve.quality.cells import CellRound, ProbeCell, ProbePath, Score
from moe_serve.quality.divergence import Position, divergence
from moe_serve.quality.identical import IdenticalResult, ProbePlan, decide
from moe_serve.quality.noninferior import TaskPlan, TaskResult, harmed
from moe_serve.quality.noninferior import decide as decide_task
from moe_serve.quality.paired import power
from moe_serve.quality.result import QualityOutcome

CELLS = tuple(ProbeCell(path, size) for path in ProbePath for size in (1, 4, 16, 64))
PLAN = ProbePlan(cells=CELLS, rounds=8)
PROMPTS, SPREAD, SHARED = 256, 0.02, 0.5
_CHUNK = 50
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]  # runs -> [runs, rounds, prompts, cells], nats


def normal(shift: Floats, spread: float = SPREAD) -> Draw:
    """Half of the variance is the prompt's, in all cells alike."""

    def draw(source: np.random.Generator, runs: int) -> Floats:
        shape = runs, PLAN.rounds, PROMPTS
        common = source.standard_normal((*shape, 1)) * spread * SHARED**0.5
        own = source.standard_normal((*shape, len(CELLS))) * spread * (1 - SHARED) ** 0.5
        return np.asarray(shift + common + own)

    return draw


def skewed(shift: Floats) -> Draw:
    """The same mean and spread, but as divergences are: most near zero, a few far above it."""

    def draw(source: np.random.Generator, runs: int) -> Floats:
        heavy = source.lognormal(0, 1, (runs, PLAN.rounds, PROMPTS, len(CELLS)))
        return np.asarray(shift + SPREAD * (heavy - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e))

    return draw


def concentrated(share: float, mean: float) -> Draw:
    """A loss that meets one prompt in 1 / share, in every cell, and no other."""

    def draw(source: np.random.Generator, runs: int) -> Floats:
        hit = source.random((runs, PLAN.rounds, PROMPTS, 1)) < share
        noise = source.standard_normal((runs, PLAN.rounds, PROMPTS, len(CELLS))) * 0.002
        return np.where(hit, mean / share, 0.0) + noise

    return draw


def resampled(pool: Floats) -> Draw:
    """Prompts drawn from a pool of excess divergences, the same in every cell."""

    def draw(source: np.random.Generator, runs: int) -> Floats:
        found = source.choice(pool, (runs, PLAN.rounds, PROMPTS, 1))
        return np.repeat(found, len(CELLS), axis=3)

    return draw


def rounding(source: np.random.Generator, size: float, prompts: int = 1000) -> Floats:
    """Excess of a lossless kernel whose logits are off by `size` (stable's own: by four fifths).

    Through the estimator itself: 64 tokens, 32 positions sampled from the gold, the 20 best told.
    """
    found = np.empty(prompts)
    for prompt in range(prompts):
        gold = _log_softmax(source.normal(0, 2.5, (32, 64)))
        stable, canary = (
            _log_softmax(gold + source.normal(0, by, gold.shape)) for by in (0.8 * size, size)
        )
        total = 0.0
        for at in range(len(gold)):
            token = int(source.choice(64, p=np.exp(gold[at])))
            wanted = _position(gold[at], token)
            for arm, sign in ((canary, 1), (stable, -1)):
                total += sign * divergence(wanted, _position(arm[at], token), sampled=True)
        found[prompt] = total / len(gold)
    return found


def _log_softmax(logits: Floats) -> Floats:
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def _position(values: Floats, token: int) -> Position:
    best = np.argsort(-values)[:20]
    return Position(token, float(values[token]), {int(at): float(values[at]) for at in best})


def outcomes(excess: Floats) -> tuple[Floats, Floats]:
    """Per run: 1 passed, -1 failed, 0 undecided; and after how many rounds. The gate's own bounds.

    `same_as_the_gate` holds it against `decide` itself.
    """
    count = np.arange(1, PLAN.rounds + 1)[None, :, None] * float(PROMPTS)
    mean = excess.sum(axis=2).cumsum(axis=1) / count
    squares = (excess**2).sum(axis=2).cumsum(axis=1)
    cubes = (excess**3).sum(axis=2).cumsum(axis=1)
    spread = np.sqrt(np.maximum(squares - count * mean**2, 0) / (count - 1))
    lean = (cubes - 3 * mean * squares) / count + 2 * mean**3
    lean /= np.where(spread > 0, spread, 1.0) ** 3
    passed = mean + PLAN.passing.half_width(spread, count, lean) < PLAN.epsilon_nats
    failed = mean - PLAN.failing.half_width(spread, count, -lean) > PLAN.epsilon_nats
    each = np.where(failed.any(axis=2), -1, np.where(passed.all(axis=2), 1, 0))
    decided = each != 0
    first = np.where(decided.any(axis=1), decided.argmax(axis=1), PLAN.rounds - 1)
    return each[np.arange(len(each)), first].astype(float), first + 1.0


def same_as_the_gate(draw: Draw, runs: int = 6) -> bool:
    """Does `decide`, round by round over the same numbers, come to the same end?"""
    excess = draw(np.random.default_rng(99), runs)
    wanted, taken = outcomes(excess)
    names = {QualityOutcome.PASSED: 1, QualityOutcome.FAILED: -1, QualityOutcome.UNDECIDED: 0}
    for run in range(runs):
        rounds: list[list[CellRound]] = []
        result = 0
        while result == 0 and len(rounds) < PLAN.rounds:
            rounds.append(_round(len(rounds), excess[run, len(rounds)]))
            made = decide(PLAN, rounds)
            assert isinstance(made, IdenticalResult)
            result = names[made.outcome]
        if (result, len(rounds)) != (wanted[run], taken[run]):
            return False
    return True


def _round(number: int, excess: Floats) -> list[CellRound]:
    def score(prompt: int, value: float) -> Score:
        name = f"{number}-{prompt}"
        return Score(prompt_id=name, stable=0.0, canary=value, top1_drop=0.0, tokens=1)

    return [
        CellRound(
            cell=cell,
            asked=PROMPTS,
            scores=tuple(score(at, float(value)) for at, value in enumerate(excess[:, column])),
        )
        for column, cell in enumerate(CELLS)
    ]


def identical(draw: Draw, runs: int, seed: int) -> dict[str, Any]:
    source = np.random.default_rng(seed)
    chunks = [outcomes(draw(source, _CHUNK)) for _ in range(runs // _CHUNK)]
    ends, taken = (np.concatenate(part) for part in zip(*chunks, strict=True))
    rounds = taken[ends != 0]
    return {
        "runs": len(ends),
        "passed": rate(int((ends == 1).sum()), len(ends)),
        "failed": rate(int((ends == -1).sum()), len(ends)),
        "rounds_median": float(np.median(rounds)) if len(rounds) else None,
        "rounds_p90": float(np.quantile(rounds, 0.9)) if len(rounds) else None,
        "same_as_the_gate": same_as_the_gate(draw),
    }


def rate(count: int, runs: int) -> dict[str, float]:
    """A share with its exact 95 % interval."""
    low = float(beta.ppf(0.025, count, runs - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, runs - count)) if count < runs else 1.0
    return {"share": count / runs, "low": low, "high": high}


def non_inferior(plan: TaskPlan, difference: float, runs: int, seed: int) -> dict[str, Any]:
    """Canary against gold at 95 % accuracy and 6 % discordant items; through `decide`."""
    source, items = np.random.default_rng(seed), plan.items
    lost, won = (plan.discordant - difference) / 2, (plan.discordant + difference) / 2
    kinds = [0.95 - lost, lost, won, 1 - 0.95 - won]
    bad_gold = {str(at): at % 20 != 0 for at in range(items)}
    bad = {name: right and int(name) % 5 != 1 for name, right in bad_gold.items()}
    ends, early = dict.fromkeys(QualityOutcome, 0), 0
    for _ in range(runs):
        drawn = source.choice(4, size=items, p=kinds)
        gold = {str(at): bool(kind in (0, 1)) for at, kind in enumerate(drawn)}
        canary = {str(at): bool(kind in (0, 2)) for at, kind in enumerate(drawn)}
        first = {str(at): canary[str(at)] for at in range(plan.early_items)}
        if harmed(plan, gold, first):
            early += 1
            ends[QualityOutcome.FAILED] += 1
            continue
        ill = {name: gold[name] and bad[name] for name in gold}
        made = decide_task(plan, gold, canary, known_bad=ill)
        assert isinstance(made, TaskResult)
        ends[made.outcome] += 1
    found = {
        "runs": runs,
        "passed": rate(ends[QualityOutcome.PASSED], runs),
        "stopped_early": rate(early, runs),
    }
    possible = abs(difference) <= plan.discordant
    exact = power(
        items=items,
        margin=plan.margin,
        discordant=plan.discordant,
        alpha=plan.alpha,
        difference=difference,
    )
    return {**found, "exact": exact if possible else None}


def one_cell(shift: float) -> Floats:
    """An excess in a single cell."""
    return np.array([shift] + [0.0] * (len(CELLS) - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=File, required=True)
    parser.add_argument("--runs", type=int, default=4000)
    args = parser.parse_args()
    begun, every, none = time.monotonic(), np.ones(len(CELLS)), np.zeros(len(CELLS))
    pools = {size: rounding(np.random.default_rng(7), size) for size in (0.02, 0.05)}
    cases: dict[str, Draw] = {
        "A/A": normal(none),
        "A/A, skewed": skewed(none),
        **{f"lossless, logits off by {size:g}": resampled(pool) for size, pool in pools.items()},
        "at .005 in one cell": normal(one_cell(0.005)),
        "at .005 in one cell, skewed": skewed(one_cell(0.005)),
        "at .005 in every cell": normal(0.005 * every),
        "at .005 in every cell, skewed": skewed(0.005 * every),
        ".008 in one cell": normal(one_cell(0.008)),
        ".008 in every cell": normal(0.008 * every),
        ".02 in one cell": normal(one_cell(0.02)),
        ".02 in every cell": normal(0.02 * every),
        ".02 in the mean, all of it in 1 of 50 prompts": concentrated(0.02, 0.02),
        ".02 in the mean, all of it in 1 of 500 prompts": concentrated(0.002, 0.02),
    }
    plans = {
        "1,319 items, 2 points": (TaskPlan(task="t", items=1319, margin=0.02), (0.0, -0.0008)),
        "1,319 items, 1 point": (TaskPlan(task="t", items=1319, margin=0.01), (0.0,)),
        "1,319 items, 2 points, loses 2": (TaskPlan(task="t", items=1319), (-0.02,)),
        "1,319 items, 2 points, loses 5": (TaskPlan(task="t", items=1319), (-0.05,)),
    }
    found = {
        "budget": PLAN.budget(),
        "epsilon_nats": PLAN.epsilon_nats,
        "prompts": PROMPTS,
        "rounding_excess": {str(size): float(pool.mean()) for size, pool in pools.items()},
        "identical": {
            name: identical(draw, args.runs, seed)
            for seed, (name, draw) in enumerate(cases.items())
        },
        "non_inferior": {
            f"{name} (truly {100 * true:+.2g} points)": non_inferior(plan, true, 1000, seed)
            for seed, (name, (plan, truths)) in enumerate(plans.items())
            for true in truths
        },
        "seconds": round(time.monotonic() - begun),
    }
    args.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
