"""Markers on a CPU: the call returns when the work is done, so the host's own clock is enough."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from moe_serve.telemetry import layout
from moe_serve.telemetry.record import (
    BatchPhase,
    GraphMode,
    Rank,
    RecordWriter,
    SlotKey,
    SlotKind,
    read_records,
)
from moe_serve.vllm_plugin.markers.slot import Cost, Slot

PAIRS = 2000


class HostMarkers:
    """Start and stop markers of eager calls on a CPU."""

    name, path = "host", "host"

    def __init__(
        self, writer: RecordWriter, *, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        """Count into `writer`, whose times are nanoseconds."""
        self._writer, self._clock = writer, clock
        self._begun = [0] * layout.CAPACITY
        self._open = False

    def owns(self, slot: Slot) -> None:
        """Nothing to do: the writer is the host's anyway."""

    def start(self, slot: Slot, window: Slot | None) -> None:
        """Note the time."""
        now = self._clock()
        self._begun[slot.number] = now
        if window:
            self._begun[window.number] = now

    def stop(self, slot: Slot, rows: int, window: Slot | None) -> None:
        """Add the time since the start."""
        now = self._clock()
        if not self._open:
            return
        for ended in (slot, window) if window else (slot,):
            self._writer.add(
                layout.unpack_key(ended.word), now - self._begun[ended.number], tokens=rows
            )

    def pretend_start(self, slot: Slot, ticks: int) -> None:
        """Let a slot seem to have begun at `ticks`, as a clock that steps would."""
        self._begun[slot.number] = ticks

    def gate(self, *, is_open: bool) -> None:
        """Count from here on, or do not."""
        self._open = is_open

    def calibrate(self) -> Cost:
        """Time pairs around nothing that count into a record of their own."""
        with tempfile.TemporaryDirectory() as folder:
            writer = RecordWriter(Path(folder), Rank())
            trial = HostMarkers(writer)
            trial.gate(is_open=True)
            slot = _trial(writer)
            begun = time.perf_counter_ns()
            for _ in range(PAIRS):
                trial.start(slot, None)
                trial.stop(slot, 1, None)
            took = time.perf_counter_ns() - begun
            writer.close()
            (total,) = read_records(Path(folder))[0].totals.values()
        return Cost(pair_seconds=took / PAIRS / 1e9, bias_seconds=total.seconds / PAIRS)

    def close(self) -> None:
        """Nothing to let go of."""


def _trial(writer: RecordWriter) -> Slot:
    key = SlotKey(
        kind=SlotKind.KERNEL, mode=GraphMode.EAGER, phase=BatchPhase.DECODE, bucket=1, layer=0
    )
    number = writer.slot(key)
    assert number is not None
    return Slot(number=number, word=layout.pack_key(key))
