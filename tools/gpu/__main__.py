"""`python -m tools.gpu bundle`, `run`: see `tools/gpu/bundle.py` and `tools/gpu/driver.py`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_serve.errors import MoeServeError
from tools.gpu.bundle import ROOT, make

# The targets of the Makefile: stages whose times count stand alone.
PLANS = {
    "test": (
        "machine",
        "selftest",
        "conformance+counts+piecewise+speculative+sleeping+second_runner",
        "speed",
        "truth",
        "cost",
    ),
    "demo": ("machine", "chain+gate"),
    "accept": ("machine", "selftest", "accept"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if all went well, 1 if a stage did not, 2 for bad input, with one line."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu")
    verbs = parser.add_subparsers(dest="verb", required=True)
    bundle = verbs.add_parser("bundle", help="lay vLLM and what it needs into a folder")
    bundle.add_argument("--out", type=Path, default=ROOT / ".gpu" / "bundle")
    bundle.add_argument("--wheels", type=Path, default=ROOT / ".cache" / "gpu-wheels")
    bundle.add_argument("--renew", action="store_true", help="pin what pip finds now")
    run = verbs.add_parser("run", help="run stages; `a+b` run side by side")
    run.add_argument("stages", nargs="*", metavar="STAGE")
    run.add_argument("--plan", choices=PLANS, help="the stages of a target of the Makefile")
    run.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    run.add_argument("--bundle", type=Path, default=ROOT / ".gpu" / "bundle")
    run.add_argument("--installed", action="store_true", help="vLLM is installed: no bundle")
    run.add_argument("--again", action="store_true", help="also stages that are done")
    run.add_argument("--deadline", type=float, metavar="SECONDS", help="for all of it")
    args = parser.parse_args(argv)
    try:
        return _bundle(args) if args.verb == "bundle" else _run(args)
    except MoeServeError as error:
        print(f"tools.gpu: {error}", file=sys.stderr)
        return 2


def _bundle(args: argparse.Namespace) -> int:
    manifest = make(args.out, args.wheels, renew=args.renew)
    print(json.dumps({k: manifest[k] for k in ("vllm", "torch", "bytes", "gpu_code", "left_out")}))
    return 0


def _run(args: argparse.Namespace) -> int:
    from tools.gpu import place
    from tools.gpu.driver import Driver

    place.prepare(None if args.installed else args.bundle)
    groups = [*(PLANS[args.plan] if args.plan else ()), *args.stages]
    driver = Driver(args.out, again=args.again, deadline=args.deadline)
    return 0 if driver.run(groups) else 1


if __name__ == "__main__":
    sys.exit(main())
