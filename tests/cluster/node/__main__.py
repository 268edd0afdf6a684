"""`python -m tests.cluster.node up|down`: what `make cluster` and `make cluster-down` run."""

import argparse
import sys
from pathlib import Path

from . import lifecycle
from .errors import NodeError
from .layout import Layout

MOST_NODES = 1000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.cluster.node", description=__doc__)
    parser.add_argument("verb", choices=["up", "down"])
    parser.add_argument("--cache", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--nodes", type=int, default=0, help="simulated MI355X nodes beside it")
    options = parser.parse_args(arguments)
    if not 0 <= options.nodes <= MOST_NODES:
        parser.error(f"--nodes: {options.nodes} is not between 0 and {MOST_NODES}")
    layout = Layout(cache=options.cache.resolve())
    try:
        if options.verb == "down":
            lifecycle.down(layout)
            return 0
        lifecycle.up(layout, nodes=options.nodes)
    except NodeError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    print(f"ready: export KUBECONFIG={layout.kubeconfig}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
