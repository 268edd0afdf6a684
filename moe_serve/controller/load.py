"""How much traffic there is, asked of Prometheus in the background."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from moe_serve.errors import SourceError

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class PrometheusLoad:
    """A query that gives the whole traffic in pods kept fully busy; `ask` runs it."""

    ask: Callable[[], float | None]
    every: float
    _pods: float | None = None

    def pods(self) -> float | None:
        """What it gave last; None where it gave nothing, which leaves it to the load test."""
        return self._pods

    def run(self, stop: threading.Event) -> None:
        """Ask until stopped."""
        while not stop.is_set():
            self.reconcile()
            stop.wait(self.every)

    def reconcile(self) -> None:
        """Ask once."""
        try:
            found = self.ask()
        except SourceError as error:
            _LOG.warning("load not measured: %s", error)
            found = None
        self._pods = found if found is None or found >= 0 else None
