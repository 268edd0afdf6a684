"""`moe-serve exporter`: the workers' records as Prometheus metrics."""

import argparse
import os
from pathlib import Path

from moe_serve.cli.parsing import at_least
from moe_serve.errors import UsageError
from moe_serve.telemetry.record import DEFAULT_RECORD_DIR, RECORD_DIR

_TTL_SECONDS = 60


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `exporter`."""
    parser.description = "Serves /metrics, /-/healthy and /-/ready until it is stopped."
    parser.add_argument(
        "--record-dir",
        type=Path,
        metavar="DIR",
        help=f"where the workers write (default: ${RECORD_DIR}, else {DEFAULT_RECORD_DIR})",
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:9400", metavar="HOST:PORT", help="address; IPv6 in brackets"
    )
    parser.add_argument(
        "--ranks",
        type=at_least(1),
        default=1,
        metavar="N",
        help="workers that must prove their padding before /-/ready is green",
    )
    parser.add_argument(
        "--ttl",
        type=at_least(1),
        default=_TTL_SECONDS,
        metavar="SECONDS",
        help="how long a dead worker's last totals stay; at least two scrape intervals",
    )
    parser.add_argument(
        "--web-config", type=Path, metavar="FILE", help="TLS and users, as other exporters' files"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    host, port = _address(args.listen)
    try:
        from moe_serve.exporter.main import serve
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed; install moe-serve[exporter]") from error
    return serve(
        records=args.record_dir or Path(os.environ.get(RECORD_DIR) or DEFAULT_RECORD_DIR),
        host=host,
        port=port,
        ttl=float(args.ttl),
        ranks=args.ranks,
        web_config=args.web_config,
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {text!r}: HOST:PORT is needed, as in 127.0.0.1:9400")
    return host.strip("[]"), int(port)
