"""One benchmark run as its file tells it, whichever tool wrote the file."""

from dataclasses import dataclass
from enum import StrEnum


class BenchmarkArm(StrEnum):
    """The two sides of a comparison; they differ in one thing only."""

    STABLE = "stable"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """Nominal tokens of a request: what the client asked for, not what came out."""

    input_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        """`1k1k` as benchmarks name their shapes, where it is exact; else `128x64`."""
        if self.input_tokens % 1024 or self.output_tokens % 1024:
            return f"{self.input_tokens}x{self.output_tokens}"
        return f"{self.input_tokens // 1024}k{self.output_tokens // 1024}k"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BenchmarkCell:
    """A shape at a fixed number of requests in flight."""

    shape: Shape
    concurrency: int

    def __str__(self) -> str:
        return f"{self.shape} c{self.concurrency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Seconds; None where the file does not say.

    `tpot` is a request's mean time per output token after the first one, `itl` the gap between
    two chunks of its stream.
    """

    ttft_median: float | None = None
    ttft_p99: float | None = None
    tpot_median: float | None = None
    tpot_p99: float | None = None
    itl_median: float | None = None
    itl_p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """One arm in one cell, and in which pair: None if the run belongs to none.

    `tput_per_gpu` is input and output tokens a second and GPU. All else is None where the file
    does not say: `failed` (requests), `output_tokens` (sum), `planned_pairs` (the horizon that was
    declared before the start), `started` (any clock that orders the runs, seconds), `client_busy`
    (the client's processor seconds a second: near 1 the client sets the pace).
    """

    arm: BenchmarkArm
    cell: BenchmarkCell
    pair: int | None
    tput_per_gpu: float
    latencies: Latencies
    failed: int | None
    output_tokens: int | None
    source: str
    planned_pairs: int | None = None
    started: float | None = None
    client_busy: float | None = None
