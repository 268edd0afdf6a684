"""Run the controller: its threads, its signals, its end."""

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from moe_serve.controller.loop import Controller
from moe_serve.controller.web import Status, serve
from moe_serve.errors import RolloutError
from moe_serve.judge.workers import Workers

_LOG = logging.getLogger(__name__)
_SOON_SECONDS = 1.0


class Thread(Protocol):
    """Something that runs beside the loop until it is stopped."""

    def run(self, stop: threading.Event) -> None:
        """Run."""


@dataclass(slots=True, kw_only=True)
class Runner:
    """The loop: looks when something changed, and at least every `every` seconds."""

    controller: Controller
    status: Status
    every: float
    stop: threading.Event = field(default_factory=threading.Event)
    wake: threading.Event = field(default_factory=threading.Event)
    on_listening: Callable[[int], None] = lambda port: None

    def run(self, threads: list[Thread], listen: tuple[str, int]) -> int:
        """Until `end`: then the weights stay as they are, and the lease is given back.

        Raises:
            UsageError: the address is in use.
        """
        workers = Workers()
        self.status.worker_failure = workers.failure
        server = serve(self.status, *listen)
        self.on_listening(server.server_port)
        for thread in threads:
            workers.start(_name(thread), thread.run, self.stop)
        try:
            while not self.stop.is_set():
                self._once()
        finally:
            self.stop.set()
            server.shutdown()
            server.server_close()
            with contextlib.suppress(RolloutError):
                self.controller.leadership.release()
        return 0

    def end(self) -> None:
        """Stop after the look that is under way."""
        self.stop.set()
        self.wake.set()

    def _once(self) -> None:
        self.wake.clear()
        result = self.controller.reconcile()
        self.status.note(result)
        if result.again:
            return
        self.wake.wait(_SOON_SECONDS if result.error else self.every)


def _name(thread: Thread) -> str:
    return f"{type(thread).__name__} {getattr(thread, 'name', '')}".rstrip()
