"""`moe-serve bench`: measure two servers pair by pair, then judge the pairs."""

import argparse
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from moe_serve.cli.canary_inputs import http_address, policy_flag, quality_flag
from moe_serve.cli.canary_results import print_verdict, rules, rules_flags
from moe_serve.cli.parsing import add_output, at_least
from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.benchmark.load.run import BenchmarkRunner
    from moe_serve.benchmark.results import BenchmarkCell


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's flags."""
    parser.description = (
        "Interleaved pairs (A B, B A, ...) of the same closed-loop load. Exit codes: 0 promote, "
        "10 roll back, 20 keep going, 30 invalid."
    )
    for arm in ("stable", "canary"):
        parser.add_argument(
            f"--{arm}-url", required=True, metavar="URL", help=f"server of the {arm} arm"
        )
        parser.add_argument(
            f"--{arm}-image", default="", metavar="REF", help="image to record in the results"
        )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a new folder for the runs"
    )
    parser.add_argument("--model", metavar="NAME", help="served model (default: the only one)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="key of both servers")
    _load_flags(parser.add_argument_group("load"))
    facts = parser.add_argument_group("what the servers are")
    facts.add_argument(
        "--tp", type=at_least(1), default=1, metavar="N", help="GPUs a server (default: 1)"
    )
    facts.add_argument("--hw", default="mi355x", metavar="NAME", help="(default: mi355x)")
    facts.add_argument("--precision", default="fp4", metavar="NAME", help="(default: fp4)")
    policy_flag(parser)
    quality_flag(parser)
    rules_flags(parser.add_argument_group("rules"))
    add_output(parser)
    parser.set_defaults(run=run)


def _load_flags(load: argparse._ArgumentGroup) -> None:
    load.add_argument(
        "--shapes", default="1k1k,8k1k", metavar="LIST",
        help="input and output tokens, as 1k1k or 128x64 (default: 1k1k,8k1k)",
    )  # fmt: skip
    load.add_argument(
        "--concurrency", default="4,8,16,32,64", metavar="LIST",
        help="requests in flight (default: 4,8,16,32,64)",
    )  # fmt: skip
    for name, default, text in (
        ("pairs", 5, "pairs to measure"),
        ("first-pair", 1, "its number, to go on in another folder"),
        ("prompts-per-slot", 10, "measured requests for each one in flight"),
    ):
        load.add_argument(
            f"--{name}", type=at_least(1), default=default, metavar="N",
            help=f"{text} (default: {default})",
        )  # fmt: skip
    for name, default, text in (
        ("warmups-per-slot", 2, "dropped requests before each run, for each one in flight"),
        ("warmup-passes", 1, "dropped passes over everything at the start"),
        ("seed", 0, "of prompts and lengths"),
    ):
        load.add_argument(
            f"--{name}", type=at_least(0), default=default, metavar="N",
            help=f"{text} (default: {default})",
        )  # fmt: skip
    load.add_argument(
        "--range-ratio", type=float, default=0.8, metavar="R",
        help="lengths lie between R times the nominal one and it (default: 0.8)",
    )  # fmt: skip
    load.add_argument(
        "--vocabulary", type=at_least(1), default=100_000, metavar="N",
        help="prompts are random token ids below it (default: 100000)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Measure, then print the verdict; its exit code is the verdict's."""
    try:
        from moe_serve.cli.canary_inputs import quality

        bench = _bench(args)
        # Read before the start: rules that cannot be read must not cost hours.
        rules(args), quality(args)()
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed; install moe-serve[canary]") from error
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        bench.run()
    except KeyboardInterrupt:
        sys.stderr.write(f"moe-serve: interrupted; whole runs are in {args.out}\n")
        return 130
    return print_verdict(args, [args.out], stable="stable", canary="canary")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _bench(args: argparse.Namespace) -> "BenchmarkRunner":
    from moe_serve.benchmark.load.client import Endpoint
    from moe_serve.benchmark.load.plan import Workload
    from moe_serve.benchmark.load.run import BenchmarkRunner
    from moe_serve.benchmark.results import BenchmarkArm

    key = _api_key(args.api_key_file)
    urls = {
        BenchmarkArm.STABLE: _url("--stable-url", args.stable_url),
        BenchmarkArm.CANARY: _url("--canary-url", args.canary_url),
    }
    return BenchmarkRunner(
        endpoints={arm: Endpoint(url=url, api_key=key) for arm, url in urls.items()},
        images={BenchmarkArm.STABLE: args.stable_image, BenchmarkArm.CANARY: args.canary_image},
        load=Workload(
            cells=_cells(args.shapes, args.concurrency),
            pairs=args.pairs,
            first_pair=args.first_pair,
            range_ratio=args.range_ratio,
            prompts_per_slot=args.prompts_per_slot,
            warmups_per_slot=args.warmups_per_slot,
            vocabulary=args.vocabulary,
            seed=args.seed,
        ),
        folder=args.out,
        model=args.model,
        gpus=args.tp,
        hardware=args.hw,
        precision=args.precision,
        warmup_passes=args.warmup_passes,
        progress=lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    )


def _url(flag: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s@]+/?", text):
        raise UsageError(f"{flag} {text!r}: an address as http://127.0.0.1:8000 is needed")
    return http_address(f"{flag} {text!r}", text, "http://127.0.0.1:8000").rstrip("/")


def _api_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--api-key-file {path}: cannot be read") from error
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"--api-key-file {path}: holds no key")
    return key


def _cells(shapes: str, concurrency: str) -> "tuple[BenchmarkCell, ...]":
    from moe_serve.benchmark.labels import shape_of
    from moe_serve.benchmark.results import BenchmarkCell

    found = {text: shape_of(text) for text in shapes.split(",")}
    for text, shape in found.items():
        if shape is None:
            raise UsageError(f"--shapes {text!r}: as 1k1k, 8k1k or 128x64")
    slots = concurrency.split(",")
    for text in slots:
        if not text.isdecimal() or not 1 <= int(text) <= 4096:
            raise UsageError(f"--concurrency {text!r}: whole numbers from 1 to 4096, as 4,8,16")
    return tuple(
        sorted(
            {
                BenchmarkCell(shape=shape, concurrency=int(slot))
                for shape in found.values()
                if shape is not None
                for slot in slots
            }
        )
    )
