"""The requests of a benchmark and their order; pure, and equal for equal seeds."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from moe_serve.benchmark.results import BenchmarkArm, BenchmarkCell
from moe_serve.errors import UsageError

WARMUP_PAIR = 0
# Many vocabularies have special tokens below this one.
_LOWEST_TOKEN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Cells, number of pairs, and how requests are drawn.

    Lengths are uniform from `range_ratio` times the nominal length up to it, as InferenceX draws
    them. Prompts are random token ids below `vocabulary`, so that lengths are exact without a
    tokenizer. `prompts_per_slot` and `warmups_per_slot` count requests per request in flight.
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
        """Refuse a ratio or vocabulary from which no request can be drawn."""
        if not 0 < self.range_ratio <= 1:
            raise UsageError(
                f"--range-ratio {self.range_ratio}: not above 0 and at most 1; give a share of "
                "the length"
            )
        if self.vocabulary < 2 * _LOWEST_TOKEN:
            raise UsageError(
                f"--vocabulary {self.vocabulary}: too few tokens; give {2 * _LOWEST_TOKEN} or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt as token ids, and the exact number of tokens to generate."""

    prompt: tuple[int, ...]
    output_tokens: int

    def body(self, model: str, salt: str) -> bytes:
        """The JSON body for `/v1/completions`; `salt` separates this run in a prefix cache."""
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
    """One run: an arm in one cell of one pair; runs of pair 0 warm up and are dropped."""

    pair: int
    arm: BenchmarkArm
    cell: BenchmarkCell


def turns(load: Workload, *, warmup_passes: int = 1) -> Iterator[Turn]:
    """All runs in order: the warm-up, then A B, B A, A B, so that drift meets both arms alike."""
    for _ in range(warmup_passes):
        for arm in BenchmarkArm:
            for cell in load.cells:
                yield Turn(pair=WARMUP_PAIR, arm=arm, cell=cell)
    for pair in range(load.first_pair, load.first_pair + load.pairs):
        for arm in BenchmarkArm if pair % 2 else reversed(BenchmarkArm):
            for cell in load.cells:
                yield Turn(pair=pair, arm=arm, cell=cell)


def requests(load: Workload, turn: Turn, *, warmup: bool = False) -> list[Request]:
    """The requests of a run: equal for both arms, different for every pair and cell."""
    shape, slots = turn.cell.shape, turn.cell.concurrency
    count = slots * (load.warmups_per_slot if warmup else load.prompts_per_slot)
    seeds = (load.seed, turn.pair, shape.input_tokens, shape.output_tokens, slots, int(warmup))
    source = np.random.default_rng(seeds)

    def lengths(nominal: int) -> list[int]:
        # In decimal: 0.55 * 100 is a little above 55 in binary.
        low = max(1, math.ceil(Decimal(repr(load.range_ratio)) * nominal))
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
