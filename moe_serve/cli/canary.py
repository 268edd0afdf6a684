"""`moe-serve canary judge`: what recorded evidence says of the canary."""

import argparse
import json
import sys
from pathlib import Path

from moe_serve.cli.parsing import add_output, at_least, fraction
from moe_serve.errors import UsageError


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add `judge` below `canary`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="judge")
    text = "faster, and the same answers? exit 0 PROMOTE, 10 ROLLBACK, 20 KEEP_GOING, 30 INVALID"
    _add_judge(verbs.add_parser("judge", help=text, description=text))


def _add_judge(verb: argparse.ArgumentParser) -> None:
    source = verb.add_argument_group("source")
    source.add_argument(
        "--from",
        dest="results",
        type=Path,
        metavar="RESULTS",
        help="benchmark results: a JSON file, or a folder of them (vllm bench serve, InferenceX "
        "aggregate, guidellm)",
    )
    names = verb.add_argument_group("how the results name the arms")
    names.add_argument("--stable", default="stable", metavar="NAME", help="the arm that serves")
    names.add_argument("--canary", default="canary", metavar="NAME", help="the arm under test")
    rules = verb.add_argument_group("rules, to be fixed before the first result is seen")
    rules.add_argument(
        "--margin", type=fraction, default=0.03, metavar="FRACTION", help="gain that must be shown"
    )
    rules.add_argument(
        "--claim", type=_ratio, default=1.08, metavar="RATIO", help="published gain to report on"
    )
    rules.add_argument(
        "--pairs",
        type=at_least(1),
        metavar="N",
        help="pairs that were planned (default: as the results say, else 5)",
    )
    add_output(verb)
    verb.set_defaults(run=judge)


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; give a ratio, as 1.08"
        ) from error


def judge(args: argparse.Namespace) -> int:
    """Print the verdict; its exit code is the verdict's."""
    if args.results is None:
        raise UsageError("--from: missing; give the benchmark's results")
    try:
        from moe_serve.canary.analysis.policy import Policy
        from moe_serve.canary.benchmarks.judge import judge_pairs
        from moe_serve.canary.benchmarks.labels import ArmNames
        from moe_serve.canary.benchmarks.reading import read_runs
        from moe_serve.canary.benchmarks.rules import Rules
        from moe_serve.canary.benchmarks.wording import to_text
        from moe_serve.canary.quality.result import NoQuality
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; install moe-serve[judge]") from error
    rules = Rules(policy=Policy(margin=args.margin), claim=args.claim, pairs=args.pairs)
    runs = read_runs(args.results, ArmNames(stable=args.stable, canary=args.canary))
    found = judge_pairs(runs, rules, NoQuality(reason="benchmark results hold no answers"))
    shown = json.dumps(found.to_json(), indent=2) if args.output == "json" else to_text(found)
    sys.stdout.write(shown + "\n")
    return found.verdict.exit_code
