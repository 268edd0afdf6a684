"""`moe-serve preflight`: is this pod fit to serve; --proof: do its workers prove their pads."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from moe_serve.cli.parsing import add_output, at_least
from moe_serve.errors import UsageError
from moe_serve.preflight.checks import PreflightCheck, PreflightOutcome, all_pass, skip, to_text
from moe_serve.preflight.expected_gpus import PRODUCTS, ExpectedGpus, mode
from moe_serve.telemetry.record import DEFAULT_RECORD_DIR, RECORD_DIR

_BEFORE, _PROOF = "before the model", "with --proof"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `preflight`."""
    parser.description = "Checks that a pod is fit to serve: exit 0 if all pass, 1 if not."
    before = parser.add_argument_group(_BEFORE)
    before.add_argument(
        "--no-gpu", action="store_true", help="leave out what asks for a GPU; the table says so"
    )
    before.add_argument(
        "--tp", type=at_least(1), metavar="N", help="tensor parallel size (default: 1)"
    )
    before.add_argument(
        "--dp", type=at_least(1), metavar="N", help="data parallel size (default: 1)"
    )
    before.add_argument(
        "--ep", action="store_true", help="experts are parallel (--enable-expert-parallel)"
    )
    before.add_argument(
        "--model",
        metavar="NAME|PATH",
        help="judge the pads of this model, as vLLM would be given it, or of a config.json",
    )
    before.add_argument(
        "--product",
        choices=tuple(PRODUCTS),
        help="the card that the pod is meant for (default: MI355X)",
    )
    before.add_argument(
        "--partition",
        action="append",
        type=_mode,
        metavar="MODE",
        help="accept GPUs in this mode, as a node label writes it (default: spx_nps1); repeatable",
    )
    before.add_argument(
        "--skip",
        action="append",
        metavar="CHECK",
        help="leave out one check by its name in the table; may be repeated",
    )
    proof = parser.add_argument_group(_PROOF)
    proof.add_argument(
        "--proof",
        action="store_true",
        help="every worker lives and proves that safe pads went through a real call",
    )
    proof.add_argument(
        "--record-dir",
        type=Path,
        help=f"where the workers write (default: ${RECORD_DIR}, else {DEFAULT_RECORD_DIR})",
    )
    proof.add_argument(
        "--ranks", type=at_least(1), metavar="N", help="workers in this pod (default: 1)"
    )
    proof.add_argument("--url", help="this address must answer 200 too, within 2 seconds")
    add_output(parser)
    parser.set_defaults(run=run)


def _mode(text: str) -> tuple[str, str]:
    try:
        return mode(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(args: argparse.Namespace) -> int:
    """Print the checks; exit 0 if all pass, 1 if one fails."""
    _refuse_mixture(args)
    checks = _proof(args) if args.proof else _without(args.skip or (), _before(args))
    passed = all_pass(checks)
    if args.output == "json":
        answer = {"passed": passed, "checks": [check.to_json() for check in checks]}
        sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    else:
        sys.stdout.write(to_text(checks))
    return 0 if passed else 1


def _refuse_mixture(args: argparse.Namespace) -> None:
    flags = {
        _BEFORE: ("no_gpu", "tp", "dp", "ep", "model", "product", "partition", "skip"),
        _PROOF: ("record_dir", "ranks", "url"),
    }
    foreign = flags[_BEFORE if args.proof else _PROOF]
    given = [f"--{name.replace('_', '-')}" for name in foreign if getattr(args, name)]
    if given and args.proof:
        raise UsageError(f"{', '.join(given)}: not with --proof, which asks the running workers")
    if given:
        raise UsageError(f"{', '.join(given)}: only with --proof, which asks the running workers")


def _proof(args: argparse.Namespace) -> Sequence[PreflightCheck]:
    from moe_serve.preflight.proof import check_proof
    from moe_serve.telemetry.record import read_records

    directory = args.record_dir or Path(os.environ.get(RECORD_DIR) or DEFAULT_RECORD_DIR)
    checks = check_proof(read_records(directory), ranks=args.ranks or 1, place=str(directory))
    if args.url is None:
        return checks
    from moe_serve.preflight.proof import check_health

    return (*checks, check_health(args.url))


def _before(args: argparse.Namespace) -> Iterable[PreflightCheck]:
    from moe_serve.padding.shapes import Parallelism
    from moe_serve.preflight.models import find_model
    from moe_serve.preflight.pod import Pod, check_pod
    from moe_serve.preflight.software import installed
    from moe_serve.vllm_plugin.settings import from_environment

    environment = dict(os.environ)
    return check_pod(
        Pod(
            gpu=not args.no_gpu,
            parallel=Parallelism(tp=args.tp or 1, dp=args.dp or 1, ep=args.ep),
            model=find_model(args.model, environment) if args.model else None,
            software=installed(),
            settings=from_environment(environment),
            environment=environment,
            expected=_expected(args),
        )
    )


def _expected(args: argparse.Namespace) -> ExpectedGpus:
    default = ExpectedGpus()
    return ExpectedGpus(
        product=PRODUCTS[args.product] if args.product else default.product,
        modes=tuple(args.partition) if args.partition else default.modes,
    )


def _without(names: Sequence[str], checks: Iterable[PreflightCheck]) -> Sequence[PreflightCheck]:
    found = list(checks)
    unknown = set(names) - {check.name for check in found}
    if unknown:
        known = ", ".join(check.name for check in found)
        raise UsageError(f"--skip {', '.join(sorted(unknown))}: no such check; there are {known}")
    return [
        skip(check.name, f"--skip; it would say {check.outcome.value}: {check.detail}")
        if check.name in names and check.outcome is not PreflightOutcome.SKIP
        else check
        for check in found
    ]
