"""Markers on a GPU: their buffers, their place in the record, and what they cost."""

import contextlib
import ctypes
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from moe_serve.telemetry import layout
from moe_serve.telemetry.record import RecordWriter
from moe_serve.telemetry.slots import HISTOGRAM_SECONDS
from moe_serve.vllm_plugin.markers import kernels
from moe_serve.vllm_plugin.markers.driver import Driver, DriverError
from moe_serve.vllm_plugin.markers.slot import Cost, Slot

# Its slot is the record's last one: no key gets it before the record is full.
_TRIAL = Slot(number=layout.CAPACITY - 1, word=0)
_WINDOW = Slot(number=layout.CAPACITY - 2, word=0)
_PAIRS, _REPLAYS = 100, 20
_NOMINAL_CUDA_HERTZ = 10**9  # %globaltimer counts nanoseconds (PTX ISA)
_CLOCK_TOLERANCE = 0.02
_COPY_SECONDS = 1.0
_FOREVER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerClock:
    """Ticks per second, and whether the driver, the architecture or a measurement says so."""

    hertz: int
    source: str


def kind_of() -> str:
    """`cuda` or `hip`: which runtime this PyTorch was built for."""
    return kernels.HIP if torch.version.hip else kernels.CUDA


def clock_of(device: torch.device) -> MarkerClock:
    """The rate of the device's clock: what the driver says, if a measurement agrees with it."""
    kind = kind_of()
    measured = _measure_hertz(device, kind)
    source, told = "nominal", _NOMINAL_CUDA_HERTZ if kind == kernels.CUDA else None
    with contextlib.suppress(DriverError):
        queried = Driver(kind).wall_clock_hertz(device.index or 0)
        source, told = ("queried", queried) if queried else (source, told)
    if told and abs(measured / told - 1) < _CLOCK_TOLERANCE:
        return MarkerClock(hertz=told, source=source)
    return MarkerClock(hertz=round(measured), source="measured")


def _measure_hertz(device: torch.device, kind: str, seconds: float = 0.1) -> float:
    state = torch.zeros(kernels.ROW, dtype=torch.int64, device=device)

    def read() -> tuple[int, float]:
        kernels.start_marker[(1,)](state, 0, 0, WINDOW=False, BACKEND=kind, num_warps=1)
        torch.cuda.synchronize(device)
        now = time.perf_counter()
        return int(state[kernels.BEGUN].item()), now

    read()  # compiles
    first = read()
    time.sleep(seconds)
    second = read()
    return (second[0] - first[0]) / (second[1] - first[1])


class DeviceMarkers:
    """Start and stop markers on one GPU; every buffer lives as long as this object.

    Made before any graph is captured and outside every memory pool, since graphs keep the
    addresses.
    """

    def __init__(
        self, writer: RecordWriter, device: torch.device, *, clock: MarkerClock, mapped: bool = True
    ) -> None:
        """Allocate, and let the device write the record; where it cannot, a thread will copy.

        Args:
            writer: the rank's record; times in it are in the clock's ticks.
            device: where the model runs.
            clock: the device's.
            mapped: whether to try to map the record at all.
        """
        self.name = kind_of()
        self._writer, self._device = writer, device
        self._state = torch.zeros((layout.CAPACITY, kernels.ROW), dtype=torch.int64, device=device)
        self._constants = _constants(clock.hertz).to(device)
        self._hertz = clock.hertz
        self._open = False
        self._mapping: _Mapping | None = None
        self.copy_reason = "asked for"
        if mapped:
            try:
                self._mapping = _Mapping(writer, Driver(self.name))
            except DriverError as error:
                self.copy_reason = str(error)
        self._copier: _Copier | None = None
        self._published = self._mapping.slots if self._mapping else 0
        if self._mapping is None:
            self._copy_instead()

    @property
    def path(self) -> str:
        """`mapped`: the device writes the record itself; `copied`: a thread copies."""
        return "copied" if self._copier else "mapped"

    def start(self, slot: Slot, window: Slot | None) -> None:
        """Enqueue the start marker on the current stream; `window` begins here too."""
        other = window.number if window else 0
        kernels.start_marker[(1,)](
            self._state, slot.number, other,
            WINDOW=window is not None, BACKEND=self.name, num_warps=1,
        )  # fmt: skip

    def stop(self, slot: Slot, rows: int, window: Slot | None) -> None:
        """Enqueue the stop marker on the current stream; `window` ends here too."""
        other = window or slot
        kernels.stop_marker[(1,)](
            self._state, self._constants, self._published,
            slot.number, slot.word, rows, other.number, other.word,
            SLOTS=2 if window else 1, BACKEND=self.name, num_warps=1,
        )  # fmt: skip

    def owns(self, slot: Slot) -> None:
        """Say that this slot is the device's to write."""
        if self._copier:
            self._copier.numbers.add(slot.number)

    def gate(self, *, is_open: bool) -> None:
        """Count what runs on the current stream from here on, or do not.

        Raises:
            DriverError: totals no longer reach the record.
        """
        if self._copier and self._copier.fault:
            fault, self._copier.fault = self._copier.fault, None
            raise DriverError(f"totals cannot be copied: {fault}") from fault
        if is_open is not self._open:
            self._count(is_open)
            self._open = is_open
            if is_open and self._copier:
                self._copier.start()

    def calibrate(self) -> Cost:
        """Measure a pair's cost and bias in a graph of nothing but markers, and that they arrive.

        Raises:
            DriverError: not even the copied way gives what was counted.
        """
        cost = self._calibrate()
        if cost is None and self._mapping is not None:
            self._mapping.close()
            self._mapping = None
            self.copy_reason = "what the device writes does not arrive in the file"
            self._copy_instead()
            cost = self._calibrate()
        if cost is None:
            raise DriverError("what the markers count does not arrive in the record")
        return cost

    def pretend_start(self, slot: Slot, ticks: int) -> None:
        """Let a slot seem to have begun at `ticks`, as a clock that steps would."""
        self._state[slot.number, kernels.BEGUN] = ticks

    def close(self) -> None:
        """Stop copying and let go of the record; only once no graph will be replayed."""
        torch.cuda.synchronize(self._device)
        if self._copier:
            self._copier.stop()
        if self._mapping:
            self._mapping.close()

    def _count(self, counts: bool) -> None:
        self._state[:, kernels.GATE].fill_(int(counts))

    def _copy_instead(self) -> None:
        mirror = torch.zeros(
            (layout.CAPACITY, 2, layout.WORDS), dtype=torch.int64, device=self._device
        )
        self._copier = _Copier(self._writer, mirror)
        self._published = mirror.data_ptr()

    def _calibrate(self) -> Cost | None:
        def pair() -> None:
            self.start(_TRIAL, None)
            self.stop(_TRIAL, 1, None)

        self.owns(_TRIAL)
        self.start(_TRIAL, _WINDOW)  # compiles the other halves
        self.stop(_TRIAL, 1, _WINDOW)
        graph = captured(pair, _PAIRS)
        self._count(True)
        graph.replay()
        self._count(False)
        torch.cuda.synchronize(self._device)
        if self._copier:
            self._copier.copy()
        found = self._writer.buffer[layout.slot_offset(_TRIAL.number) :][: layout.SLOT_BYTES]
        self._forget(_TRIAL)
        try:
            cell = layout.unpack_cells(found, 0)
        except ValueError:
            return None
        if cell is None or cell[layout.COUNT] != _PAIRS:
            return None
        bias = cell[layout.TICKS] / _PAIRS / self._hertz
        pair_seconds = statistics.median(timed(graph, 1) for _ in range(_REPLAYS)) / _PAIRS
        return Cost(pair_seconds=pair_seconds, bias_seconds=bias)

    def _forget(self, slot: Slot) -> None:
        self._state[slot.number].zero_()
        if self._copier:
            self._copier.mirror[slot.number].zero_()
            self._copier.numbers.discard(slot.number)
        torch.cuda.synchronize(self._device)
        offset = layout.slot_offset(slot.number)
        self._writer.buffer[offset : offset + layout.SLOT_BYTES] = bytes(layout.SLOT_BYTES)


def captured(work: Callable[[], object], times: int) -> torch.cuda.CUDAGraph:
    """A graph of `work` that many times over."""
    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            work()
    return graph


def timed(graph: torch.cuda.CUDAGraph, replays: int) -> float:
    """Seconds of one of some replays, back to back, between two events."""
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    for _ in range(replays):
        graph.replay()
    ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3 / replays


def _constants(hertz: int) -> torch.Tensor:
    """What a lane adds to and how it is sealed: [3, 32] int64."""
    table = [[_FOREVER] * layout.WORDS for _ in range(3)]
    bounds = [-1, *(round(bound * hertz) for bound in HISTOGRAM_SECONDS), _FOREVER]
    for index in range(layout.BINS):
        table[kernels.LOWER][layout.HISTOGRAM + index] = bounds[index]
        table[kernels.UPPER][layout.HISTOGRAM + index] = bounds[index + 1]
    table[kernels.FACTOR] = [*map(_signed, layout.SEAL_FACTORS), _signed(layout.SEAL_SALT)]
    return torch.tensor(table, dtype=torch.int64)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word


class _Mapping:
    """The record's file, as the device may write it."""

    def __init__(self, writer: RecordWriter, driver: Driver) -> None:
        self._driver = driver
        # Held until `close`: it keeps the file mapped here.
        self._bytes = (ctypes.c_char * layout.SIZE).from_buffer(writer.buffer)
        self._address = ctypes.addressof(self._bytes)
        self.slots = driver.map(self._address, layout.SIZE) + layout.SLOTS_AT

    def close(self) -> None:
        with contextlib.suppress(DriverError):
            self._driver.unmap(self._address)
        del self._bytes


class _Copier:
    """A slow thread that brings the device's cells into the record; seals make tearing harmless."""

    def __init__(self, writer: RecordWriter, mirror: torch.Tensor) -> None:
        self.mirror = mirror
        self.numbers: set[int] = set()
        self.fault: Exception | None = None
        self._writer = writer
        self._stream = torch.cuda.Stream(mirror.device)
        self._host = torch.zeros(mirror.shape, dtype=mirror.dtype, pin_memory=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moe-serve-copier", daemon=True)

    def start(self) -> None:
        """Begin, at the first served step: no graph is being captured then."""
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def copy(self) -> None:
        """Bring every cell that the device wrote into the record."""
        with torch.cuda.stream(self._stream):
            self._host.copy_(self.mirror, non_blocking=True)
        self._stream.synchronize()
        cells = memoryview(self._host.numpy()).cast("B")
        for number in tuple(self.numbers):
            at, to = number * layout.SLOT_BYTES, layout.slot_offset(number)
            self._writer.buffer[to : to + layout.SLOT_BYTES] = cells[at : at + layout.SLOT_BYTES]

    def _run(self) -> None:
        while not self._stop.wait(_COPY_SECONDS):
            try:
                self.copy()
            except Exception as error:  # noqa: BLE001  # told at the next gate, in serving's thread
                self.fault = error
                return
