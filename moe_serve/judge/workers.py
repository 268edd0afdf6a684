"""Background threads under supervision: one that ends before it is stopped is a failure."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Workers:
    """Starts threads, and keeps why each one ended; health checks read `failure`."""

    _failures: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self, name: str, run: Callable[[threading.Event], object], stop: threading.Event
    ) -> None:
        """Run `run(stop)` in a daemon thread; it must not return before `stop` is set."""

        def supervised() -> None:
            reason = "it returned"
            try:
                run(stop)
            except BaseException as error:  # noqa: BLE001 - whatever ends a thread must be shown
                _LOG.exception("thread %s ended", name)
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            if not stop.is_set():
                with self._lock:
                    self._failures.setdefault(name, reason)

        threading.Thread(target=supervised, name=name, daemon=True).start()

    def failure(self) -> str | None:
        """Which threads ended, and why, in one line; None while all of them run."""
        with self._lock:
            ended = [f"{name} ended: {reason}" for name, reason in self._failures.items()]
        return " ".join("; ".join(ended).split()) or None
