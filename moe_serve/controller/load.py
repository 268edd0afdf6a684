"""How much traffic there is, asked of Prometheus in the background."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from moe_serve.errors import SourceError

_LOG = logging.getLogger(__name__)
# Three attempts of 20 s each, and the pauses between.
_ANSWER_SECONDS = 65.0


@dataclass(slots=True, kw_only=True)
class PrometheusLoad:
    """A query that gives the whole traffic in pods kept fully busy; `ask` runs it."""

    ask: Callable[[], float | None]
    every: float
    clock: Callable[[], float] = time.monotonic
    _pods: float | None = None
    _measured: float | None = None

    @property
    def stale_seconds(self) -> float:
        """Age above which a number is no longer used: three intervals, and a slow answer's time."""
        return 3 * self.every + _ANSWER_SECONDS

    def pods(self) -> float | None:
        """What it gave last; None where it gave nothing, or too long ago, which leaves it to the
        load test.
        """
        pods, age = self._pods, self.age_seconds()
        return None if age is None or age > self.stale_seconds else pods

    def age_seconds(self) -> float | None:
        """Seconds since it gave a number last; None if it never did."""
        return None if self._measured is None else self.clock() - self._measured

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
        if self._pods is not None:
            self._measured = self.clock()
