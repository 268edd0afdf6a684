"""A measurement of whether the emulated kernel's time follows the weight bytes that it reads.

    python -m moe_serve_emulation.calibrate --output json

Four kinds of call take turns on one thread: pads of zero, lossless pads (192, 192), the pads that
vLLM 0.22 to 0.32 send at TP=1 (128, 384), and zero again (A/A). Each is compared with the zero call
of the same turn. Exit code 1 if a ratio of times is too far from the ratio of bytes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from moe_serve_emulation import kernel
from moe_serve_emulation.skips import reads

HIDDEN = INTER = 3072
PADS = {"aligned": (192, 192), "upstream": (128, 384), "zero again": (0, 0)}
# Each call takes another expert (113 MB) than the call before, so that all find their weights
# equally cold: with one expert the first call of a turn warmed the cache for the others, and A/A
# showed 1.24. Five, since with four each kind of call would always take the same expert.
EXPERTS = 5
# Some cost is not skipped, so time gains 0.005 to 0.04 less than bytes, measured on a Xeon and an
# EPYC; it must not gain more, or overhead would look like a gain. A/A deviates by 0.013.
ABOVE, BELOW = 0.03, 0.07


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Time with pads of zero over time with these pads, beside the same ratio in bytes.

    `runs` holds one median of paired ratios per run; `seconds_ratio` is their median, `low` and
    `high` the smallest and the largest. `zero_seconds` is the median time of a call that skips
    nothing.
    """

    label: str
    hidden_pad: int
    intermediate_pad: int
    bytes_ratio: float
    seconds_ratio: float
    low: float
    high: float
    runs: tuple[float, ...]
    zero_seconds: float

    @property
    def passed(self) -> bool:
        """Whether the time follows the bytes: at most `ABOVE` more gain, at most `BELOW` less."""
        return -BELOW <= self.seconds_ratio - self.bytes_ratio <= ABOVE


def calibrate(*, runs: int = 5, turns: int = 48, m: int = 4) -> tuple[Ratio, ...]:
    """The ratios of `runs` runs of `turns` turns, with `m` tokens of one expert, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        call = _prepared(m)
        _run(call, EXPERTS)  # Warm-up: first touch of the weights, MKL's own set-up.
        measured = [_run(call, turns) for _ in range(runs)]
    finally:
        torch.set_num_threads(threads)
    return tuple(_ratio(label, [run[label] for run in measured], measured) for label in PADS)


Call = Callable[[int, int, int], None]
Times = dict[str, list[float]]


def _prepared(m: int) -> Call:
    generator = torch.Generator().manual_seed(0)
    w1 = _weights((EXPERTS, 2 * INTER, HIDDEN), generator)
    w2 = _weights((EXPERTS, HIDDEN, INTER), generator)
    x = torch.randn(m, HIDDEN, generator=generator).to(torch.bfloat16)
    shares = torch.ones(m, 1)
    config = kernel.KernelConfig()

    def call(expert: int, hidden_pad: int, intermediate_pad: int) -> None:
        kernel.fused_moe(
            x,
            w1,
            w2,
            shares,
            torch.full((m, 1), expert, dtype=torch.int32),
            hidden_pad=hidden_pad,
            intermediate_pad=intermediate_pad,
            config=config,
            prepacked=True,
        )

    return call


def _weights(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    # Random values: their order does not change the time.
    return torch.empty(shape, dtype=torch.float32).uniform_(-0.02, 0.02, generator=generator)


def _run(call: Call, turns: int) -> Times:
    times: Times = {"zero": [], **{label: [] for label in PADS}}
    for turn in range(turns):
        for place, (label, pads) in enumerate(_order(turn)):
            expert = (turn * (1 + len(PADS)) + place) % EXPERTS
            begun = time.perf_counter()
            call(expert, *pads)
            times[label].append(time.perf_counter() - begun)
    return times


def _order(turn: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield a turn's pads, rotated by one each turn, so that none always follows another."""
    arms = [("zero", (0, 0)), *PADS.items()]
    shift = turn % len(arms)
    yield from arms[shift:] + arms[:shift]


def _ratio(label: str, runs: Sequence[list[float]], measured: Sequence[Times]) -> Ratio:
    medians = tuple(
        statistics.median(zero / this for zero, this in zip(run["zero"], times, strict=True))
        for run, times in zip(measured, runs, strict=True)
    )
    hidden_pad, intermediate_pad = PADS[label]
    return Ratio(
        label=label,
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        bytes_ratio=_bytes(0, 0) / _bytes(hidden_pad, intermediate_pad),
        seconds_ratio=statistics.median(medians),
        low=min(medians),
        high=max(medians),
        runs=medians,
        zero_seconds=statistics.median(t for run in measured for t in run["zero"]),
    )


def _bytes(hidden_pad: int, intermediate_pad: int) -> int:
    plan = reads(
        hidden=HIDDEN,
        inter=INTER,
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        config=kernel.KernelConfig(),
    )
    return plan.weights


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ratios; return 0 if each is within the tolerance, else 1."""
    parser = argparse.ArgumentParser(prog="python -m moe_serve_emulation.calibrate")
    parser.add_argument("--runs", type=int, default=5, help="independent repetitions")
    parser.add_argument("--turns", type=int, default=48, help="paired measurements per run")
    parser.add_argument("--tokens", type=int, default=4, help="tokens of one expert's call")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    args = parser.parse_args(argv)
    ratios = calibrate(runs=args.runs, turns=args.turns, m=args.tokens)
    passed = all(ratio.passed for ratio in ratios)
    if args.output == "json":
        document = {
            "passed": passed,
            "tolerance": {"above": ABOVE, "below": BELOW},
            "tokens": args.tokens,
            "ratios": [{**asdict(ratio), "passed": ratio.passed} for ratio in ratios],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0 if passed else 1
    for ratio in ratios:
        sys.stdout.write(
            f"{ratio.label:11} time {ratio.seconds_ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
            f"  bytes {ratio.bytes_ratio:.3f}  {'ok' if ratio.passed else 'OFF'}\n"
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
