"""`python -m tools.node VERB`: what `make cluster` and its kin run."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from . import lifecycle, namespaces, preconditions, shell
from .errors import NodeError
from .layout import Layout

MOST_NODES = 1000


def main(arguments: list[str]) -> int:
    """Do what the arguments say; the exit code, 2 where something is missing or failed."""
    options = _parse(arguments)
    layout = Layout(cache=options.cache.resolve())
    try:
        if options.verb == "down":
            lifecycle.down(layout)
            return 0
        if options.verb == "check":
            preconditions.check(layout)
            return 0
        if options.verb == "programs":
            lifecycle.programs(layout, monitoring=options.monitoring, more=options.more)
            return 0
        if options.verb == "with":
            return _with(layout, options)
        cluster = lifecycle.up(layout, nodes=options.nodes, monitoring=options.monitoring)
        place = shell.write(layout, Path(cluster.kubectl_program))
    except NodeError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    print(f"ready: . {place}     (kubectl and helm for this node)")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools.node", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, does in (
        ("up", "start a node, or complete the one that runs"),
        ("down", "end it"),
        ("check", "say whether this machine can carry one"),
        ("programs", "compile what it runs, and start nothing"),
        ("with", "run a command with a node, and end the node if it was started for that"),
    ):
        its = verbs.add_parser(verb, help=does, description=does)
        its.add_argument("--cache", type=Path, required=True, help="where everything is kept")
        if verb in ("up", "programs", "with"):
            its.add_argument(
                "--without-monitoring", dest="monitoring", action="store_false",
                help="no Prometheus, which takes minutes to compile the first time",
            )  # fmt: skip
        if verb in ("up", "with"):
            its.add_argument(
                "--nodes", type=_number, default=0, help="simulated MI355X nodes beside it"
            )
    verbs.choices["programs"].add_argument(
        "more", nargs="*", metavar="NAME", help="another program that is not the node's own"
    )
    verbs.choices["with"].add_argument("command", nargs="+", help="after --")
    return parser.parse_args(arguments)


def _number(text: str) -> int:
    if text.isdecimal() and int(text) <= MOST_NODES:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text} is not between 0 and {MOST_NODES}")


def _with(layout: Layout, options: argparse.Namespace) -> int:
    """Where KUBECONFIG names another cluster, the command runs there, and no node is needed."""
    named = os.environ.get("KUBECONFIG")
    environment = {**os.environ, "MOE_SERVE_CACHE": str(layout.cache)}
    if named and Path(named).resolve() != layout.kubeconfig:
        return subprocess.run(options.command, env=environment, check=False).returncode
    ran_before = namespaces.find(layout) is not None
    try:
        lifecycle.up(layout, nodes=options.nodes, monitoring=options.monitoring)
        return subprocess.run(options.command, env=environment, check=False).returncode
    finally:
        if not ran_before:
            lifecycle.down(layout)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
