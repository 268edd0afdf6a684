"""The port of every source of histories: Prometheus, exporters, a recorded file."""

from typing import Protocol

from moe_serve.analysis.history import History


class HistorySource(Protocol):
    """A source of both arms' samples."""

    def history(self, start: float, end: float) -> History:
        """Both arms' samples between two times, in seconds since the epoch.

        Raises:
            SourceError: the source cannot be read now, or has no sample of the arms.
        """
