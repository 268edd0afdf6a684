"""`moe-serve canary judge --from RESULTS`: benchmark results instead of a history."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli.canary_inputs import quality, read_analysis_plan, with_policy
from moe_serve.cli.parsing import at_least
from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.benchmark.protocol import Rules


def results_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--from` and what goes with it."""
    group = parser.add_argument_group("benchmark results instead of a source")
    group.add_argument(
        "--from", dest="results", type=Path, nargs="+", metavar="RESULTS",
        help="JSON files, or folders of them: vllm bench serve, InferenceX aggregate, guidellm",
    )  # fmt: skip
    rules_flags(group)
    group.add_argument(
        "--pairs", type=at_least(1), metavar="N",
        help="pairs that were planned (default: as the results say, else 5)",
    )  # fmt: skip


def rules_flags(group: argparse._ArgumentGroup) -> None:
    """Add `--claim`."""
    group.add_argument(
        "--claim", type=_ratio, default=1.08, metavar="RATIO",
        help="published ratio to report on; it decides nothing (default: 1.08)",
    )  # fmt: skip


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed; give a ratio, as 1.08"
        ) from error


def rules(args: argparse.Namespace) -> "Rules":
    """The policy's rules, and the flags'.

    Raises:
        UsageError: the policy has rules for what benchmark results do not tell.
    """
    from moe_serve.analysis.series import CellKind
    from moe_serve.benchmark.protocol import Rules

    analysis_plan = read_analysis_plan(args)
    for key, rule, fault in (
        ("strata", analysis_plan.batches, "do not tell batch sizes"),
        ("weights", analysis_plan.weights, "do not tell batch sizes"),
        (
            "guards",
            analysis_plan.guards,
            "have a rule of their own for p99 latencies, and no other",
        ),
        (
            "speed.primary",
            analysis_plan.policy.primary is CellKind.KERNEL,
            "do not tell kernel times",
        ),
    ):
        if rule:
            raise UsageError(
                f"--policy-file {args.policy_file}: {key}: benchmark results {fault}; leave it out "
                "to judge them"
            )
    return Rules(policy=analysis_plan.policy, claim=args.claim, pairs=args.pairs)


def judge_results(args: argparse.Namespace) -> int:
    """Print the verdict on `args.results`; its exit code is the verdict's."""
    if args.history or args.prometheus or args.exporter:
        raise UsageError("--from: benchmark results are a source of their own; give no other")
    if args.start or args.end:
        raise UsageError("--start and --end: benchmark results are judged whole, with --from")
    arms = with_policy(args)
    return print_verdict(args, args.results, stable=arms.stable_label, canary=arms.canary_label)


def print_verdict(
    args: argparse.Namespace, places: Sequence[Path], *, stable: str, canary: str
) -> int:
    """Judge the runs at these places, whose arms have these names."""
    from moe_serve.benchmark.judge import judge_pairs
    from moe_serve.benchmark.labels import ArmNames
    from moe_serve.benchmark.reading import read_runs

    runs = read_runs(places, ArmNames(stable=stable, canary=canary))
    found = judge_pairs(runs, rules(args), quality(args)())
    if args.output == "json":
        sys.stdout.write(json.dumps(found.to_json(), sort_keys=True, allow_nan=False) + "\n")
    else:
        sys.stdout.write(found.to_text() + "\n")
    return found.verdict.exit_code
