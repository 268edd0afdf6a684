"""What is asked of the servers, and in which order: pure, and the same for the same seeds."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell
from moe_serve.errors import UsageError

WARMUP_PAIR = 0
# Below are the tokens with a meaning of their own in many vocabularies.
_LOWEST_TOKEN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Lengths are drawn from `range_ratio` times the nominal one up to it, as InferenceX does.

    Prompts are token ids below `vocabulary`: no tokenizer is needed, and lengths are exact.
    """

    cells: tuple[BenchmarkCell, ...]
    pairs: int
    first_pair: int = 1
    range_ratio: float = 0.8
    prompts_per_slot: int = 10
    warmups_per_slot: int = 2
    vocabulary: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a load that cannot be asked for."""
        if not 0 < self.range_ratio <= 1:
            raise UsageError(f"--range-ratio {self.range_ratio}: above 0, and at most 1, is needed")
        if self.vocabulary < 2 * _LOWEST_TOKEN:
            raise UsageError(
                f"--vocabulary {self.vocabulary}: {2 * _LOWEST_TOKEN} or more is needed"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how many tokens it must be answered with."""

    prompt: tuple[int, ...]
    output_tokens: int

    def body(self, model: str, salt: str) -> bytes:
        """The completion request's body; the salt keeps earlier runs out of a prefix cache."""
        content: Mapping[str, object] = {
            "model": model,
            "prompt": self.prompt,
            "max_tokens": self.output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_salt": salt,
        }
        return json.dumps(content).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One arm in one cell of one pair; pair 0 is the warm-up, whose numbers are dropped."""

    pair: int
    arm: BenchmarkArm
    cell: BenchmarkCell


def turns(load: Workload, *, warmup_passes: int = 1) -> Iterator[Turn]:
    """The warm-up, then A B, B A, A B: a drift of the machine meets both arms alike."""
    for _ in range(warmup_passes):
        for arm in BenchmarkArm:
            for cell in load.cells:
                yield Turn(pair=WARMUP_PAIR, arm=arm, cell=cell)
    for pair in range(load.first_pair, load.first_pair + load.pairs):
        for arm in BenchmarkArm if pair % 2 else reversed(BenchmarkArm):
            for cell in load.cells:
                yield Turn(pair=pair, arm=arm, cell=cell)


def requests(load: Workload, turn: Turn, *, warmup: bool = False) -> list[Request]:
    """What a turn asks: the same of both arms, another thing in every pair and cell."""
    shape, slots = turn.cell.shape, turn.cell.concurrency
    count = slots * (load.warmups_per_slot if warmup else load.prompts_per_slot)
    seeds = (load.seed, turn.pair, shape.input_tokens, shape.output_tokens, slots, int(warmup))
    source = np.random.default_rng(seeds)

    def lengths(nominal: int) -> list[int]:
        low = max(1, math.ceil(load.range_ratio * nominal))
        return [int(value) for value in source.integers(low, nominal, count, endpoint=True)]

    return [
        Request(
            prompt=tuple(source.integers(_LOWEST_TOKEN, load.vocabulary, size).tolist()),
            output_tokens=answer,
        )
        for size, answer in zip(
            lengths(shape.input_tokens), lengths(shape.output_tokens), strict=True
        )
    ]
