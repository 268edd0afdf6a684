"""Run the judge as a service: a thread that judges, another that scrapes, and the web server."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import uvicorn

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.errors import UsageError
from moe_serve.judge.app import make_app
from moe_serve.judge.audit import Audit
from moe_serve.judge.watch import ComparisonWatch
from moe_serve.judge.workers import Workers
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality
from moe_serve.sources.addresses import address_fault
from moe_serve.sources.port import HistorySource
from moe_serve.sources.scraped import Scraper, Target

_SCRAPE_SECONDS = 15.0


def serve(
    *,
    source: HistorySource | None,
    exporters: Sequence[str],
    analysis_plan: AnalysisPlan,
    quality: Callable[[], QualityFinding | NoQuality],
    started: float,
    host: str,
    port: int,
    every: float,
    audit: Path | None,
) -> int:
    """Serve until a signal stops it.

    Raises:
        UsageError: the address is in use, the audit's chain is broken, or a target is no target.
    """
    if source is None:
        source = scraped = Scraper(targets=targets(exporters))
    else:
        scraped = None
    log = Audit(audit) if audit else None
    stop, workers = threading.Event(), Workers()
    threads: list[tuple[str, Callable[[threading.Event], None]]] = []
    if scraped is not None:
        interval = min(_SCRAPE_SECONDS, analysis_plan.blocking.window_seconds / 4)
        threads.append(("scraper", partial(scraped.run, interval)))

    def judged(found: Findings) -> None:
        if log:
            log.append(found, time.time())

    watch = ComparisonWatch(
        source=source,
        analysis_plan=analysis_plan,
        quality=quality,
        started=started,
        on_judged=judged,
    )
    threads.append(("judge", partial(watch.run, every)))
    app = make_app(watch, clock=time.time, worker_failure=workers.failure)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    try:
        with contextlib.closing(_listen(host, port)) as listener:
            for name, run in threads:
                workers.start(name, run, stop)
            server.run(sockets=[listener])
    finally:
        stop.set()
    return 0


def targets(exporters: Sequence[str]) -> tuple[Target, ...]:
    """`stable=http://...` for each pod; both arms must be there.

    Raises:
        UsageError: one is of another form, or an arm is missing.
    """
    found = []
    for text in exporters:
        arm, equals, url = text.partition("=")
        if arm not in ("stable", "canary") or not equals or "://" not in url:
            raise UsageError(f"--exporter {text!r}: as stable=http://10.0.0.1:9400/metrics")
        if fault := address_fault(url):
            raise UsageError(f"--exporter {arm}: no request can be sent to its address: {fault}")
        found.append(Target(arm=arm, pod=url.split("://", 1)[1].split("/", 1)[0], url=url))
    for arm in ("stable", "canary"):
        if not any(target.arm == arm for target in found):
            raise UsageError(f"--exporter: none is given for the {arm} arm")
    return tuple(found)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {error.strerror or error}") from error
    return listener
