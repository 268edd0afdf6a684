"""Where a marker counts, and what markers cost: words of every backend."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A slot of the record: its number, and its key as one word."""

    number: int
    word: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds: what a pair of markers takes, and what it measures with nothing in between."""

    pair_seconds: float
    bias_seconds: float


class Backend(Protocol):
    """Markers on one kind of device; `name` and `path` as in the record's proof."""

    name: str

    @property
    def path(self) -> str:
        """How totals reach the record: `mapped`, `copied` or `host`."""

    def owns(self, slot: Slot) -> None:
        """Say that this slot is the markers' to write."""

    def start(self, slot: Slot, window: Slot | None) -> None:
        """Mark the start of a call, and of a window if one is given."""

    def stop(self, slot: Slot, rows: int, window: Slot | None) -> None:
        """Mark the end of a call of `rows` rows, and of a window if one is given."""

    def gate(self, *, is_open: bool) -> None:
        """Count what is marked from here on, or do not."""

    def pretend_start(self, slot: Slot, ticks: int) -> None:
        """Let a slot seem to have begun at `ticks`, as a clock that steps would."""

    def calibrate(self) -> Cost:
        """Measure the markers themselves."""

    def close(self) -> None:
        """Let go of everything."""
