"""Entry point of `moe-serve`: build the parser, run the verb, turn errors into exit codes."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from moe_serve import __version__
from moe_serve.cli.parsing import Parser, Verb, printable
from moe_serve.errors import MoeServeError

USAGE = 2
_SERVE = "serve"

# Each verb: its module in this package, and what `--help` says of it.
_VERBS: Mapping[str, str] = {
    "padding": "what a deployment's pads do",
    "preflight": "is this pod fit to serve: before the model, and the workers' own proof",
    _SERVE: "vLLM, with one line of what will serve, unless it is known to answer wrongly",
    "exporter": "the workers' records as Prometheus metrics",
    "canary": "is the canary faster, with the same answers",
    "quality": "do two servers give the same answers",
    "bench": "two servers, measured pair by pair",
}


def build_parser(only: str | None = None) -> Parser:
    """The whole command line, from which `docs/cli.md` is generated too.

    `only`: the one verb whose module is imported. A probe runs every few seconds, and should not
    pay for the judge.
    """
    parser = Parser(
        prog="moe-serve",
        description="Serve GPT-OSS on MI355X with padding whose loss is known.",
    )
    parser.add_argument("--version", action="version", version=f"moe-serve {__version__}")
    groups = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    for name, text in _VERBS.items():
        verb = groups.add_parser(name, help=text)
        if only in (name, None):
            _add_flags(name)(verb)
    return parser


def _add_flags(name: str) -> Callable[[argparse.ArgumentParser], None]:
    module = import_module(f"moe_serve.cli.{name}")
    add: Callable[[argparse.ArgumentParser], None]
    add = module.add_verbs if hasattr(module, "add_verbs") else module.add_flags
    return add


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (2: bad input or failure, told in one line)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        # vLLM's arguments are vLLM's: argparse would take `-tp 8` for flags of ours.
        if words[:1] == [_SERVE] and words[1:2] not in (["-h"], ["--help"]):
            from moe_serve.cli import serve

            return serve.run(words[1:])
        named = words[0] if words and words[0] in _VERBS else None
        args = build_parser(named).parse_args(words)
        run: Verb = args.run
        return run(args)
    except MoeServeError as error:
        line = " ".join(str(error).split("\n"))  # a name in it may have more lines than one
        sys.stderr.write(f"moe-serve: {printable(line)}\n")
        return USAGE
    except BrokenPipeError:
        # The reader (`head`, a pager) left; what it read was right.
        sys.stderr.close()
        return 0
