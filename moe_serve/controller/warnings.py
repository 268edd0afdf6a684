"""Warnings of reconciles that fail, for failures that no history can hold."""

import logging
from dataclasses import dataclass

from moe_serve.errors import RolloutError
from moe_serve.rollout.ports import WarningSink

_LOG = logging.getLogger(__name__)
_FAILURES_BEFORE_WARNING = 2  # in a row: most single failures are over at the next reconcile


@dataclass(slots=True, kw_only=True)
class FailureWarnings:
    """Sends one warning per cause and streak of failures, as soon as the sink accepts it."""

    sink: WarningSink | None = None
    _failures: int = 0
    _last_error: str = ""
    _warned: str = ""
    _pending: tuple[str, float] | None = None

    def update(self, error: str, now: float) -> None:
        """Count a reconcile and send what is due; `error` is empty if the reconcile succeeded.

        A warning that the sink refuses is sent again while reconciles fail, and once after.
        """
        repeated = error == self._last_error
        self._failures = self._failures + 1 if error else 0
        self._last_error = error
        if not error:
            self._warned = ""
        elif self._failures == _FAILURES_BEFORE_WARNING or (
            self._failures > _FAILURES_BEFORE_WARNING and repeated and error != self._warned
        ):
            self._warned, self._pending = error, (error, now)
        if self._pending and self.sink:
            self._send(self.sink, *self._pending, retry=bool(error))

    def _send(self, sink: WarningSink, text: str, at: float, *, retry: bool) -> None:
        try:
            sink.warn(text, at)
        except RolloutError as refused:
            _LOG.warning("Event not written: %s", refused)
            if retry:
                return
        self._pending = None
