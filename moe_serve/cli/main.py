"""Entry point of `moe-serve`: build the parser, run the verb, turn errors into exit codes."""

import sys
from collections.abc import Sequence

from moe_serve import __version__
from moe_serve.cli import bench, canary, demo, exporter, padding, preflight, quality
from moe_serve.cli.parsing import Parser, Verb
from moe_serve.errors import MoeServeError

USAGE = 2


def build_parser() -> Parser:
    """The whole command line, from which `docs/cli.md` is generated too."""
    parser = Parser(
        prog="moe-serve",
        description="Serve GPT-OSS on MI355X with padding whose loss is known.",
    )
    parser.add_argument("--version", action="version", version=f"moe-serve {__version__}")
    groups = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    padding.add_verbs(groups.add_parser("padding", help="what a deployment's pads do"))
    preflight.add_flags(
        groups.add_parser("preflight", help="is this pod fit to serve: the workers' own proof")
    )
    exporter.add_flags(
        groups.add_parser("exporter", help="the workers' records as Prometheus metrics")
    )
    canary.add_verbs(
        groups.add_parser("canary", help="is the canary faster, with the same answers")
    )
    quality.add_verbs(groups.add_parser("quality", help="do two servers give the same answers"))
    bench.add_flags(groups.add_parser("bench", help="two servers, measured pair by pair"))
    demo.add_flags(groups.add_parser("demo", help="the whole story on a CPU: measure, judge"))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2: bad input or failure, told in one line)."""
    try:
        args = build_parser().parse_args(argv)
        run: Verb = args.run
        return run(args)
    except MoeServeError as error:
        sys.stderr.write(f"moe-serve: {error}\n")
        return USAGE
    except BrokenPipeError:
        # The reader (`head`, a pager) left; what it read was right.
        sys.stderr.close()
        return 0
