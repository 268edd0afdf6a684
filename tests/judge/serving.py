"""The judge's service over samples in memory, on a free port."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn

from moe_serve.analysis.history import History
from moe_serve.analysis.noise import PodVariation
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.errors import SourceError
from moe_serve.judge.app import make_app
from moe_serve.judge.watch import ComparisonWatch
from moe_serve.quality.finding import QualityFinding
from moe_serve.quality.result import NoQuality
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from tests.testing.histories import START, Fleet, streams
from tests.testing.verdicts import SAME

NOW = START + 4 * 3600
WAY = QuerySource(
    source="memory", build_query=lambda names, start, end: f"{'|'.join(names)} {start} {end}"
)
RULES = AnalysisPlan(pod_variation=PodVariation(), under_test=("policy",))


@dataclass
class Memory:
    """A source over samples in memory that can be made to fail."""

    fleet: Fleet = field(default_factory=Fleet)
    fault: str = ""

    def history(self, start: float, end: float) -> History:
        if self.fault:
            raise SourceError(self.fault)
        return assemble(streams(self.fleet), ArmSelector(), start, end, "memory", WAY)


Served = Callable[..., tuple[ComparisonWatch, httpx.Client]]


@pytest.fixture(name="served")
def serving() -> Iterator[Served]:
    """Starts the service on a free port, as often as a test asks for one."""
    with contextlib.ExitStack() as stack:

        def start(
            source: Memory,
            quality: QualityFinding | NoQuality = SAME,
            now: Callable[[], float] = lambda: NOW,
        ) -> tuple[ComparisonWatch, httpx.Client]:
            watch = ComparisonWatch(
                source=source,
                analysis_plan=RULES,
                quality=lambda: quality,
                started=START,
                clock=now,
            )
            listener = socket.create_server(("127.0.0.1", 0))
            stack.callback(listener.close)
            config = uvicorn.Config(make_app(watch, clock=now), log_level="warning")
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            client = stack.enter_context(httpx.Client(base_url=url, trust_env=False))
            return watch, client

        yield start
