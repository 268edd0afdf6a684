"""`moe-serve canary`: power analysis, judge it, replay it, explain it, serve the verdict."""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli import canary_rollout
from moe_serve.cli.canary_inputs import (
    moment,
    policy_flag,
    quality,
    quality_flag,
    read_analysis_plan,
    source,
    source_flags,
    window,
    window_flags,
    with_policy,
)
from moe_serve.cli.canary_results import judge_results, results_flags
from moe_serve.cli.parsing import Verb, at_least, between
from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.analysis.comparison import Findings

_PODS = (1, 2, 4, 8)


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add the verbs of `canary`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    power = verbs.add_parser("power", help="power analysis: hours and pods that a margin takes")
    power.description = "Whether a comparison can be decided: power, hours and smallest gain."
    policy_flag(power)
    power.add_argument(
        "--block-noise", type=between(0, 1), metavar="SD",
        help="log SD of one block's pooled ratio (default: the policy's calibration)",
    )  # fmt: skip
    power.add_argument(
        "--gain", type=between(0.1, 10), default=1.077, help="the expected true speed-up (a ratio)"
    )
    _run(power, _power)

    calibrate = verbs.add_parser("calibrate", help="the policy's noise figures, from an A/A run")
    calibrate.description = (
        "Prints the parts `calibration` and `pod_variation` of a policy, as YAML."
    )
    policy_flag(calibrate)
    source_flags(calibrate)
    window_flags(calibrate)
    _run(calibrate, _calibrate)

    for name, text, run in (
        ("judge", "the verdict now, with its numbers", _judge),
        ("explain", "every number behind the verdict", _explain),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.description = "Exit codes: 0 promote, 10 roll back, 20 keep going, 30 invalid."
        policy_flag(verb)
        source_flags(verb)
        window_flags(verb)
        quality_flag(verb)
        if name == "judge":
            results_flags(verb)
        _run(verb, run)

    report = verbs.add_parser("report", help="the verdict as one HTML page, and as Markdown")
    report.description = "Writes index.html and summary.md; exits with the verdict's code."
    policy_flag(report)
    source_flags(report)
    window_flags(report)
    quality_flag(report)
    report.add_argument(
        "--out", type=Path, default=Path("canary-report"), metavar="DIR", help="folder to write to"
    )
    _run(report, _report)

    replay = verbs.add_parser("replay", help="judge a past window look by look, or check an audit")
    replay.description = (
        "One line a look; the exit code is that of the first decision. With --audit it is that of "
        "the log's last verdict (0: the log is whole and its last verdict is PROMOTE), and 2 for "
        "a log that is not whole, has no verdict, or lacks --last."
    )
    policy_flag(replay)
    source_flags(replay)
    window_flags(replay)
    quality_flag(replay)
    replay.add_argument(
        "--audit", type=Path, metavar="FILE", help="check this audit log and judge it anew"
    )
    replay.add_argument(
        "--last", metavar="HASH", help="of a line that --audit must hold: a log that was cut off "
        "at its end shows nothing else of it",
    )  # fmt: skip
    _run(replay, _replay)

    serve = verbs.add_parser("serve", help="the verdict over HTTP: /v1/verdict, /metrics, a page")
    serve.description = "Judges every --every seconds until it is stopped."
    policy_flag(serve)
    source_flags(serve)
    quality_flag(serve)
    serve.add_argument("--start", metavar="TIME", help="when the comparison began (default: now)")
    serve.add_argument("--listen", default="127.0.0.1:9500", metavar="HOST:PORT", help="address")
    serve.add_argument(
        "--every", type=at_least(1), default=60, metavar="SECONDS", help="how often to judge"
    )
    serve.add_argument(
        "--audit", type=Path, metavar="FILE", help="append every verdict to this log"
    )
    _run(serve, _serve)
    for name, (help_text, add, verb_run) in canary_rollout.VERBS.items():
        verb = verbs.add_parser(name, help=help_text)
        add(verb)
        _run(verb, verb_run)


def _run(parser: argparse.ArgumentParser, run: Verb) -> None:
    parser.add_argument(
        "--output", choices=("text", "json"), default="text", help="form of the answer"
    )
    parser.set_defaults(run=_needing_extras(run))


def _needing_extras(run: Verb) -> Verb:
    def checked(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ModuleNotFoundError as error:
            extras = {
                "jinja2": "canary,report",
                "matplotlib": "canary,report",
                "kubernetes": "controller",
            }.get((error.name or "").partition(".")[0], "canary")
            raise UsageError(
                f"{error.name} is not installed; install moe-serve[{extras}]"
            ) from error

    return checked


def _calibrate(args: argparse.Namespace) -> int:
    from moe_serve.analysis.calibrate import calibrate

    past = source(args)
    start, end = window(args, past)
    found = calibrate(past.history(start, end), read_analysis_plan(args))
    known, pod_variation = found.calibration, found.pod_variation
    parts: dict[str, dict[str, float]] = {
        "calibration": {
            "block_variance": float(f"{known.block_variance:.4g}"),
            "blocks": known.blocks,
            "autocorrelation": round(known.autocorrelation, 3),
        }
    }
    if pod_variation is not None:
        parts["spread"] = {
            "gpu_sd": float(f"{pod_variation.gpu_sd:.3g}"),
            "gpu_freedom": pod_variation.gpu_freedom,
        }
    if args.output == "json":
        _print_json(
            {
                **parts,
                "mean_log_ratio": found.mean_log_ratio,
                "advised_seconds": found.advised_seconds,
            }
        )
        return 0
    lines = [
        f"# A/A over {known.hours:.1f} h: the arms differ by "
        f"{math.expm1(found.mean_log_ratio):+.2%}, the standard deviation per block is "
        f"{math.sqrt(known.block_variance):.2%}",
        *(f"{name}: {json.dumps(part)}" for name, part in parts.items()),
    ]
    if pod_variation is None:
        lines.append("# spread: it takes two pods or more that ran the same batch sizes")
    if found.advised_seconds > known.block_seconds:
        lines.append(
            f"# the noise's memory asks for blocks of {found.advised_seconds:.0f} s: set "
            "blocks.seconds, and calibrate again"
        )
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _found(args: argparse.Namespace) -> "Findings":
    from moe_serve.analysis.comparison import examine

    past = source(args)
    start, end = window(args, past)
    return examine(past.history(start, end), read_analysis_plan(args), quality(args)())


def _judge(args: argparse.Namespace) -> int:
    if args.results is not None:
        return judge_results(args)
    found = _found(args)
    judgement = found.judgement
    if args.output == "json":
        _print_json(found.to_json())
    else:
        sys.stdout.write(f"{judgement.verdict.value}: {judgement.reason}\n")
    return judgement.verdict.exit_code


def _explain(args: argparse.Namespace) -> int:
    from moe_serve.report.explanation import explain

    found = _found(args)
    if args.output == "json":
        _print_json(found.to_json())
    else:
        sys.stdout.write(explain(found) + "\n")
    return found.judgement.verdict.exit_code


def _report(args: argparse.Namespace) -> int:
    from moe_serve.analysis.comparison import examine
    from moe_serve.report.comparison import comparison_report
    from moe_serve.report.page import page
    from moe_serve.report.summary import summary

    past = source(args)
    start, end = window(args, past)
    history = past.history(start, end)
    found = examine(history, read_analysis_plan(args), quality(args)())
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    data = comparison_report(history, found, created=created)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "index.html").write_text(page(data), "utf-8")
        (args.out / "summary.md").write_text(summary(data), "utf-8")
    except OSError as error:
        raise UsageError(f"--out {args.out}: {error.strerror}") from error
    judgement = found.judgement
    if args.output == "json":
        _print_json(found.to_json())
    else:
        sys.stdout.write(f"{judgement.verdict.value}: {judgement.reason}\n")
        sys.stdout.write(f"{args.out / 'index.html'}\n")
    return judgement.verdict.exit_code


def _replay(args: argparse.Namespace) -> int:
    if args.audit is not None:
        return _check_audit(args)
    if args.last is not None:
        raise UsageError("--last: names a line of --audit FILE, which is not given")
    from moe_serve.analysis.comparison import examine
    from moe_serve.analysis.verdict import Verdict

    past, analysis_plan, answers = source(args), read_analysis_plan(args), quality(args)()
    start, end = window(args, past)
    history = past.history(start, end)
    length = analysis_plan.blocking.block_seconds
    code = Verdict.KEEP_GOING.exit_code
    for blocks in range(1, int((end - start) // length) + 1):
        found = examine(history.until(start + blocks * length), analysis_plan, answers)
        judgement = found.judgement
        if args.output == "json":
            _print_json(found.to_json())
        else:
            sys.stdout.write(f"{blocks:4} {judgement.verdict.value:10} {judgement.reason}\n")
        code = judgement.verdict.exit_code
        if judgement.verdict in (Verdict.PROMOTE, Verdict.ROLLBACK):
            break
    return code


def _check_audit(args: argparse.Namespace) -> int:
    from moe_serve.judge.audit import entries, reproduce

    code: int | None = None
    number, verdicts, hashes = 0, 0, [""]
    for number, entry in enumerate(entries(args.audit), start=1):
        where = f"audit {args.audit}, line {number}"
        hashes.append(entry["hash"])
        told = entry.get("transition")
        if isinstance(told, dict):
            sys.stdout.write(f"{number:4} {told.get('title', '')!s:10} {told.get('detail', '')}\n")
            continue
        try:
            found = reproduce(entry)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
        verdicts += 1
        again = found.to_json()
        if json.dumps(again, sort_keys=True) != json.dumps(entry.get("verdict"), sort_keys=True):
            raise UsageError(
                f"{where}: its inputs give {again['verdict']} ({again['reason']}), its verdict is "
                "another"
            )
        code = found.judgement.verdict.exit_code
        sys.stdout.write(f"{number:4} {again['verdict']:10} {again['reason']}\n")
    if code is None:
        raise UsageError(f"audit {args.audit}: {number} lines and no verdict in them")
    if args.last is not None and args.last not in hashes[1:]:
        raise UsageError(
            f"audit {args.audit}: no line has the hash {args.last}: its end was cut off, or it is "
            "another log"
        )
    sys.stdout.write(
        f"{verdicts} verdicts in {number} lines: the chain is whole up to its last line, and each "
        f"follows from its inputs\nlast {hashes[-1]}\n"
    )
    return code


def _power(args: argparse.Namespace) -> int:
    from moe_serve.analysis.planning import outlook

    analysis_plan = read_analysis_plan(args)
    known = analysis_plan.calibration
    if args.block_noise is None and known is None:
        raise UsageError(
            "--block-noise: how noisy is a block? Take it from an A/A run, or put the run's "
            "`calibration` into the policy"
        )
    variance = args.block_noise**2 if args.block_noise is not None else 0.0
    if known is not None and args.block_noise is None:
        variance = known.block_variance
    rows = [
        outlook(analysis_plan, block_variance=variance, gain=math.log(args.gain), pods=pods)
        for pods in _PODS
    ]
    if args.output == "json":
        from dataclasses import asdict

        _print_json({"pods": [asdict(row) for row in rows]})
        return 0
    hours = analysis_plan.deadline_seconds / 3600
    sys.stdout.write(
        f"a true gain of {args.gain - 1:+.1%}, a margin of {analysis_plan.policy.margin:+.1%}, "
        f"{hours:g} h at most\n\n"
        "pods an arm   promoted   half of them after   smallest gain promoted at 80 %\n"
    )
    for row in rows:
        when = "cannot be decided" if row.hours is None else f"{row.hours:.1f} h"
        smallest = f"{math.expm1(row.smallest_gain):+.1%}"
        sys.stdout.write(f"{row.pods:11}   {row.power:8.0%}   {when:>18}   {smallest}\n")
    return 0


def _serve(args: argparse.Namespace) -> int:
    from moe_serve.judge.main import serve

    host, colon, port = args.listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {args.listen!r}: HOST:PORT is needed, as in 127.0.0.1:9500")
    exporters = with_policy(args).exporter
    return serve(
        source=None if exporters else source(args),
        exporters=tuple(exporters or ()),
        analysis_plan=read_analysis_plan(args),
        quality=quality(args),
        started=time.time() if args.start is None else moment("--start", args.start),
        host=host.strip("[]"),
        port=int(port),
        every=float(args.every),
        audit=args.audit,
    )


def _print_json(body: object) -> None:
    sys.stdout.write(json.dumps(body, sort_keys=True, allow_nan=False) + "\n")
