"""One benchmark run, whichever tool wrote its file."""

from dataclasses import dataclass
from enum import StrEnum


class BenchmarkArm(StrEnum):
    """The two sides of a comparison."""

    STABLE = "stable"
    CANARY = "canary"


class Clock(StrEnum):
    """What a run's time counts; times of two clocks have no order."""

    EPOCH = "epoch"
    """When it started, in seconds since the epoch."""
    LOCAL_END = "local_end"
    """When it ended, by the client's local time, whose zone is not known."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """Nominal input and output tokens of a request."""

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
    """99th percentiles in seconds; None where the file has no such figure.

    `tpot` is a request's mean time per output token after the first one, `itl` the gap between
    two chunks of its stream.
    """

    ttft_p99: float | None = None
    tpot_p99: float | None = None
    itl_p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """One arm in one cell of one pair; `pair` is None for a run that belongs to none.

    `tput_per_gpu` is input and output tokens per second and GPU. The rest is None where the file
    has no such figure: `failed` (requests), `output_tokens` (sum), `planned_pairs` (declared before
    the start), `started` (seconds of `clock`, which orders runs of the same clock alone),
    `client_busy` (the client's processor seconds per second; near 1 the client limits the rate).
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
    clock: Clock = Clock.EPOCH
    client_busy: float | None = None
