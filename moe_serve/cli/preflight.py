"""`moe-serve preflight --proof`: do this pod's workers prove that their pads are safe."""

import argparse
import json
import os
import sys
from pathlib import Path

from moe_serve.cli.parsing import add_output, at_least
from moe_serve.errors import UsageError
from moe_serve.preflight.checks import all_pass, to_text
from moe_serve.preflight.proof import check_proof
from moe_serve.telemetry.place import DEFAULT_RECORD_DIR, RECORD_DIR
from moe_serve.telemetry.record import read_records


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `preflight`."""
    parser.description = "Checks that a pod is fit to serve: exit 0 if all pass, 1 if not."
    parser.add_argument(
        "--proof",
        action="store_true",
        help="every worker lives and proves that safe pads went through a real call",
    )
    parser.add_argument(
        "--record-dir",
        type=Path,
        help=f"where the workers write (default: ${RECORD_DIR}, else {DEFAULT_RECORD_DIR})",
    )
    parser.add_argument(
        "--ranks", type=at_least(1), default=1, metavar="N", help="workers in this pod (default: 1)"
    )
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the checks; exit 0 if all pass, 1 if one fails."""
    if not args.proof:
        raise UsageError("--proof: missing; it is the check that there is")
    directory = args.record_dir or Path(os.environ.get(RECORD_DIR) or DEFAULT_RECORD_DIR)
    checks = check_proof(read_records(directory), ranks=args.ranks, place=str(directory))
    passed = all_pass(checks)
    if args.output == "json":
        answer = {"passed": passed, "checks": [check.to_json() for check in checks]}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        sys.stdout.write(to_text(checks))
    return 0 if passed else 1
