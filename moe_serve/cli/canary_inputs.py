"""What `moe-serve canary` is told: rules, a source, a window, a comparison of answers."""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.analysis.plan import AnalysisPlan
    from moe_serve.quality.finding import QualityFinding
    from moe_serve.quality.result import NoQuality
    from moe_serve.sources.port import HistorySource


# What `datetime` can show.
_YEAR_9999 = 253_402_300_799


def policy_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--policy-file`."""
    parser.add_argument(
        "--policy-file",
        type=Path,
        metavar="FILE",
        help="the comparison's rules (default: built in)",
    )


def source_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a source."""
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        "--history", type=Path, metavar="FILE", help="a recorded history, OpenMetrics text"
    )
    sources.add_argument("--prometheus", metavar="URL", help="a Prometheus server's HTTP API")
    sources.add_argument(
        "--exporter", action="append", metavar="ARM=URL",
        help="an exporter's /metrics, asked directly; once a pod, ARM is stable or canary",
    )  # fmt: skip
    parser.add_argument("--selector", metavar="LABELS", help="as 'namespace=\"llm\"'")
    parser.add_argument(
        "--arm-label", metavar="NAME", help="tells the arms apart (default: the policy's, or track)"
    )
    for arm in ("stable", "canary"):
        parser.add_argument(
            f"--{arm}-label", metavar="VALUE",
            help=f"value of --arm-label on {arm}'s pods (default: the policy's, or {arm})",
        )  # fmt: skip
    parser.add_argument("--bearer-token-file", type=Path, metavar="FILE", help="for Prometheus")
    parser.add_argument("--basic-auth-file", type=Path, metavar="FILE", help="user:password")
    parser.add_argument("--ca-file", type=Path, metavar="FILE", help="who signed the server")


def window_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--start` and `--end`."""
    for name in ("start", "end"):
        parser.add_argument(
            f"--{name}", metavar="TIME", help="as 2026-05-01T12:00:00Z, or seconds since the epoch"
        )


def quality_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--quality`."""
    parser.add_argument(
        "--quality", type=Path, metavar="FILE", help="what `quality probe --output json` said; "
        "without it nothing is promoted",
    )  # fmt: skip


def read_analysis_plan(args: argparse.Namespace) -> "AnalysisPlan":
    """The rules in the policy file, or the built-in ones."""
    from moe_serve.config import policy_file

    if args.policy_file is None:
        return policy_file.parse({}, "the built-in policy")
    return policy_file.load(args.policy_file)


def quality(args: argparse.Namespace) -> "Callable[[], QualityFinding | NoQuality]":
    """What reads the comparison of answers, anew at each call."""
    from moe_serve.config import quality_file
    from moe_serve.quality.result import NoQuality

    if args.quality is None:
        return lambda: NoQuality(reason="no comparison of answers was given (--quality)")
    return lambda: quality_file.read(args.quality)


_KINDS = ("history", "prometheus", "exporter")
_AUTH = ("bearer_token_file", "basic_auth_file")


def with_policy(args: argparse.Namespace) -> argparse.Namespace:
    """The flags, and where one is not given what the policy file states.

    A flag that names a source replaces all of the file's, so that no secret that was meant for one
    server reaches another.

    Raises:
        UsageError: no arm would be told from the other, or the file cannot be read.
    """
    from moe_serve.config import policy_file
    from moe_serve.sources.declared import Declared

    stated = policy_file.load_declared(args.policy_file) if args.policy_file else Declared()
    other = any(getattr(args, kind) for kind in _KINDS)
    own_auth = any(getattr(args, key) is not None for key in _AUTH)
    told: dict[str, object] = {
        "arm_label": "track",
        "stable_label": "stable",
        "canary_label": "canary",
    }
    told |= {"selector": "", **stated.arms}
    if not other:
        left_out = _AUTH if own_auth else ()
        told |= {key: value for key, value in stated.source.items() if key not in left_out}
    found = argparse.Namespace(**vars(args))
    for key, value in told.items():
        if getattr(found, key) is None:
            setattr(found, key, value)
    if found.stable_label == found.canary_label:
        raise UsageError(
            f"--stable-label and --canary-label are both {found.canary_label!r}; give two values"
        )
    return found


def source(args: argparse.Namespace) -> "HistorySource":
    """The source that has a past."""
    from moe_serve.sources.assemble import ArmSelector

    args = with_policy(args)
    arms = ArmSelector(label=args.arm_label, stable=args.stable_label, canary=args.canary_label)
    if args.history is not None:
        from moe_serve.sources.recorded import RecordedFile

        return RecordedFile(path=args.history, arms=arms)
    if args.prometheus is not None:
        from moe_serve.sources.prometheus import Prometheus

        http_address("--prometheus", args.prometheus, "http://prometheus:9090")
        return Prometheus(
            url=args.prometheus,
            arms=arms,
            selector=args.selector,
            bearer_token_file=args.bearer_token_file,
            basic_auth_file=args.basic_auth_file,
            ca_file=args.ca_file,
        )
    if args.exporter:
        raise UsageError(
            "exporters have no past: only `canary serve` asks them (--exporter, or the policy's "
            "source.exporters)"
        )
    raise UsageError(
        "no source: give --history FILE, --prometheus URL or --exporter ARM=URL, or `source` in "
        "the policy"
    )


def http_address(flag: str, url: str, example: str) -> str:
    """An address that requests can be sent to.

    Raises:
        UsageError: none can; only `flag` may quote it, since it may hold a secret.
    """
    from moe_serve.sources.addresses import address_fault

    if fault := address_fault(url):
        raise UsageError(f"{flag}: as {example}; no request can be sent to this address: {fault}")
    return url


def window(args: argparse.Namespace, found: "HistorySource") -> tuple[float, float]:
    """The asked-for window; of a recorded file its own span is the default."""
    from moe_serve.sources.recorded import RecordedFile

    span: tuple[float | None, float] = (None, time.time())
    if isinstance(found, RecordedFile) and None in (args.start, args.end):
        span = found.span()
    start = span[0] if args.start is None else moment("--start", args.start)
    end = span[1] if args.end is None else moment("--end", args.end)
    if start is None:
        raise UsageError("--start: when did the comparison begin?")
    if not start < end:
        raise UsageError(f"--start {args.start} does not lie before the end")
    return start, end


def moment(flag: str, text: str) -> float:
    """A time as seconds since the epoch."""
    try:
        seconds = float(text)
    except ValueError:
        return _instant(flag, text)
    # NaN is not within either.
    if not 0 <= seconds <= _YEAR_9999:
        raise UsageError(f"{flag} {text!r}: seconds since the epoch are 0 to {_YEAR_9999}")
    return seconds


def _instant(flag: str, text: str) -> float:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text!r}: as 2026-05-01T12:00:00Z, or seconds") from error
    if found.tzinfo is None:
        raise UsageError(f"{flag} {text!r}: say which time zone, as 2026-05-01T12:00:00Z")
    return found.timestamp()
