"""The exporter's process: listen, answer, and end at SIGTERM or SIGINT."""

import gc
import logging
import signal
import stat
import sys
import threading
from pathlib import Path
from types import FrameType

from moe_serve.errors import UsageError
from moe_serve.exporter.collector import Collector, Readiness
from moe_serve.exporter.sources import Sources
from moe_serve.exporter.web import Application, WebConfig, load_web_config, make_listener


def serve(
    *, records: Path, host: str, port: int, ttl: float, ranks: int, web_config: Path | None
) -> int:
    """Listen and answer until SIGTERM or SIGINT.

    Raises:
        UsageError: it cannot start: the folder is a file, the address is taken, TLS does not work.
    """
    if _is_no_folder(records):
        raise UsageError(f"--record-dir {records}: it is no folder")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    web = load_web_config(web_config) if web_config else WebConfig()
    collector, unready = Collector(Sources(records, ttl=ttl)), Readiness(records, ranks=ranks)
    server = make_listener(host, port, Application(collector, unready, web.users), web)

    def stop(_number: int, _frame: FrameType | None) -> None:
        # From a thread: `shutdown` waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    scheme = "https" if web.context else "http"
    logging.getLogger(__name__).info(
        "%s://%s:%d/metrics from the records in %s", scheme, host, server.server_port, records
    )
    # A large scrape makes many objects and no cycles: looking for some takes a tenth of its time.
    gc.freeze()
    gc.set_threshold(200_000)
    with server:
        server.serve_forever(poll_interval=0.2)
    return 0


def _is_no_folder(path: Path) -> bool:
    """False too for what cannot be seen: it may come, and until then scrapes say what is wrong."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False
