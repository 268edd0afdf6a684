"""`moe-serve padding explain|check|table`: what a deployment's pads do, before it is deployed."""

import argparse
import json
import sys

from moe_serve.cli import padding_table
from moe_serve.cli.padding_model import (
    add_model_flags,
    quant_of,
    read_ksplit_flag,
    read_model,
    read_tables,
)
from moe_serve.cli.parsing import add_output, at_least, fraction, printable
from moe_serve.padding import aiter_eras, vllm_eras
from moe_serve.padding.contract import PaddingPolicy
from moe_serve.padding.deployment import Deployment, PaddingJudgement, judge
from moe_serve.padding.report import answer, to_json, to_text
from moe_serve.padding.shapes import Layout, Parallelism


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `explain`, `check` and `table` below `padding`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="explain|check|table")
    for name, text, run in (
        ("explain", "what each kernel makes of the pads, and what that costs", explain),
        ("check", "the same as a gate: exit 0 if safe, 1 if unsafe or unverified", check),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        add_model_flags(verb)
        _add_flags(verb)
        verb.set_defaults(run=run)
    padding_table.add_verb(verbs)


def _add_flags(verb: argparse.ArgumentParser) -> None:
    serving = verb.add_argument_group("deployment")
    serving.add_argument("--tp", type=at_least(1), default=1, metavar="N", help="tensor parallel")
    serving.add_argument("--ep", action="store_true", help="experts are parallel")
    serving.add_argument("--dp", type=at_least(1), default=1, metavar="N", help="data parallel")
    serving.add_argument(
        "--vllm",
        default=vllm_eras.NEWEST_VERIFIED,
        metavar="VERSION|unknown",
        help="vLLM's version, as `pip show` says it (default: %(default)s, the newest whose code "
        "was run)",
    )
    serving.add_argument(
        "--aiter",
        default=aiter_eras.NEWEST_VERIFIED,
        metavar="VERSION|unknown",
        help="AITER's version, or unknown to demand safety on all (default: %(default)s)",
    )
    serving.add_argument(
        "--allow-unverified",
        action="store_true",
        help="let software pass whose own source was not read, if no loss is found",
    )
    pads = verb.add_argument_group("pads")
    pads.add_argument(
        "--policy",
        choices=[policy.value for policy in PaddingPolicy],
        default=PaddingPolicy.ALIGNED.value,
    )
    pads.add_argument(
        "--max-neuron-loss",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="share of a rank's live neurons that may be lost (default: 0)",
    )
    add_output(verb)


def explain(args: argparse.Namespace) -> int:
    """Print the report; always exit 0."""
    _print(args, _judged(args))
    return 0


def check(args: argparse.Namespace) -> int:
    """Print the report; exit 0 if it is safe, 1 if it is unsafe or unverified."""
    judgement = _judged(args)
    _print(args, judgement)
    return 0 if answer(judgement.worst, allow_unverified=args.allow_unverified).passes else 1


def _print(args: argparse.Namespace, judgement: PaddingJudgement) -> None:
    allowed = args.allow_unverified
    if args.output == "json":
        report = to_json(judgement, allow_unverified=allowed)
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write(printable(to_text(judgement, allow_unverified=allowed)) + "\n")


def _judged(args: argparse.Namespace) -> PaddingJudgement:
    model = read_model(args)
    deployment = Deployment(
        model=model,
        parallel=Parallelism(tp=args.tp, ep=args.ep, dp=args.dp),
        vllm=vllm_eras.vllm_build(args.vllm),
        aiter=aiter_eras.aiter_build(args.aiter),
        quant=quant_of(args, model),
        layout=Layout(args.layout) if args.layout else None,
        ksplit=read_ksplit_flag(args.ksplit),
        site=read_tables(args.tuned),
    )
    return judge(deployment, PaddingPolicy(args.policy), max_loss=args.max_neuron_loss)
