"""Write and read a worker's record file.

One file a rank. The writer holds a lock on it for life, so that a reader in another container,
which cannot see the writer's pid, knows whether it lives; an idle writer keeps the lock and its
last step grows old. How a reader tells a whole value from a torn one: `layout`.
"""

import contextlib
import fcntl
import mmap
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import RecordError
from moe_serve.telemetry import layout
from moe_serve.telemetry.layout import CAPACITY, BadRecord, Flags, Header
from moe_serve.telemetry.proof import BadProof, Proof, proof_from_json
from moe_serve.telemetry.slots import (
    HISTOGRAM_SECONDS,
    BatchPhase,
    GraphMode,
    ModelRole,
    Rank,
    SlotKey,
    SlotKind,
    Totals,
)

__all__ = [
    "DEFAULT_RECORD_DIR",
    "RECORD_DIR",
    "BatchPhase",
    "GraphMode",
    "ModelRole",
    "Rank",
    "Record",
    "RecordWriter",
    "SlotKey",
    "SlotKind",
    "Totals",
    "read_record",
    "read_records",
    "record_paths",
]  # fmt: skip

RECORD_DIR = "MOE_SERVE_RECORD_DIR"
DEFAULT_RECORD_DIR = "/dev/shm/moe-serve"
_SUFFIX = ".record"
_READS, _PAUSE_SECONDS = 5, 0.0005
_SECOND = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One rank's record at one moment. `alive`: its writer still holds the lock.

    `pid` is the writer's in its own container: another container cannot use it. `generation`
    changes with the writer and whenever graphs are captured anew. `last_step_seconds` is wall-clock
    time; None before the first step. `slots_torn` had no whole value when read. `proof` is None
    before the first one, and where `proof_fault` says why the one that is there cannot be taken.
    """

    path: Path
    rank: Rank
    pid: int
    generation: int
    recaptures: int
    clock_hertz: int
    started_seconds: float
    last_step_seconds: float | None
    alive: bool
    telemetry_failed: bool
    slots_dropped: int
    slots_torn: int
    proof: Proof | None
    proof_fault: str | None
    totals: Mapping[SlotKey, Totals]


class RecordWriter:
    """The one host-side writer of a rank's record; not for use across a fork, or by two threads.

    Slots that `slot` hands out may be written by a device instead of `add`, never by both.
    """

    def __init__(
        self,
        directory: Path,
        rank: Rank,
        *,
        clock_hertz: int = _SECOND,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Create the file whole, then put it in the place of an older one.

        Args:
            directory: made if it is missing.
            rank: whose record.
            clock_hertz: ticks per second of the times in slots.
            clock: wall-clock nanoseconds.

        Raises:
            RecordError: the folder or the file cannot be made, or another worker writes it.
        """
        self.pid = os.getpid()
        self._clock = clock
        self._numbers: dict[SlotKey, int] = {}
        self._words: dict[SlotKey, list[int]] = {}
        self._bounds = [round(bound * clock_hertz) for bound in HISTOGRAM_SECONDS]
        self._header_updates = self._proof_updates = 0
        self._recaptures = 0
        self._refused: set[SlotKey] = set()
        self._flags = Flags.NONE
        self._rank, self._clock_hertz = rank, clock_hertz
        self._started = clock()
        self._generation = self._started
        _require_unused(directory / rank.file_name)
        temporary = directory / _temporary(rank.file_name)
        with contextlib.ExitStack() as undo:
            undo.callback(_forget, temporary)
            try:
                self._file = _create(directory, rank.file_name)
                undo.callback(os.close, self._file)
                self.buffer = mmap.mmap(self._file, layout.SIZE)
                layout.pack_preamble(self.buffer)
                for phase in (BatchPhase.DECODE, BatchPhase.MIXED):
                    self.slot(_schedule(phase))
                self._write_header()
                temporary.replace(directory / rank.file_name)
            except OSError as error:
                text = error.strerror or str(error)
                raise RecordError(f"{directory}: no record can be made: {text}") from error
            undo.pop_all()

    def prove(self, proof: Proof) -> None:
        """Replace the proof."""
        self._proof_updates += 1
        layout.pack_proof(self.buffer, proof.to_json(), self._proof_updates)

    def slot(self, key: SlotKey) -> int | None:
        """The number of a key's slot; None, and counted once as dropped, beyond the capacity."""
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) == CAPACITY:
                if key not in self._refused:
                    self._refused.add(key)
                    self._write_header()
                return None
            number = self._numbers[key] = len(self._numbers)
            self._write_header()
        return number

    def add(self, key: SlotKey, ticks: int, *, tokens: int = 0) -> None:
        """Add one measurement to its slot; one that ran backwards is counted as invalid."""
        words = self._slot_words(key)
        if words is None:
            return
        words[layout.UPDATES] += 1
        if ticks < 0:
            words[layout.INVALID] += 1
        else:
            words[layout.COUNT] += 1
            words[layout.TICKS] += ticks
            words[layout.LONGEST] = max(words[layout.LONGEST], ticks)
            words[layout.TOKENS] += tokens
            words[layout.HISTOGRAM + bisect_left(self._bounds, ticks)] += 1
        layout.pack_cells(self.buffer, layout.slot_offset(self._numbers[key]), words)

    def stepped(self, phase: BatchPhase, tokens: int) -> None:
        """Count one served step of `tokens` real tokens, and remember when it was."""
        key = _schedule(phase)
        words = self._slot_words(key)
        if words is None:
            return
        words[layout.UPDATES] += 1
        words[layout.COUNT] += 1
        words[layout.TOKENS] += tokens
        words[layout.LONGEST] = self._clock()
        layout.pack_cells(self.buffer, layout.slot_offset(self._numbers[key]), words)

    def recaptured(self) -> None:
        """Say that graphs were captured anew: totals go on, comparisons across this do not hold."""
        self._generation += 1
        self._recaptures += 1
        self._write_header()

    def fail(self) -> None:
        """Say for good that the totals are not to be trusted."""
        self._flags |= Flags.TELEMETRY_FAILED
        self._write_header()

    def close(self) -> None:
        """Let go of the lock; the file stays, as a dead writer's."""
        with contextlib.suppress(BufferError):  # a device may still have it mapped
            self.buffer.close()
        os.close(self._file)

    def _slot_words(self, key: SlotKey) -> list[int] | None:
        words = self._words.get(key)
        if words is None and self.slot(key) is not None:
            words = self._words[key] = [0, layout.pack_key(key), *[0] * (layout.SEAL - 2)]
        return words

    def _write_header(self) -> None:
        self._header_updates += 1
        header = Header(
            rank=self._rank,
            pid=self.pid,
            started=self._started,
            generation=self._generation,
            recaptures=self._recaptures,
            clock_hertz=self._clock_hertz,
            slots_used=len(self._numbers),
            slots_dropped=len(self._refused),
            flags=self._flags,
        )
        layout.pack_header(self.buffer, header, self._header_updates)


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _schedule(phase: BatchPhase) -> SlotKey:
    """What served steps of a phase are counted in; reserved, so that nothing can crowd it out."""
    return SlotKey(kind=SlotKind.SCHEDULE, mode=GraphMode.EAGER, phase=phase, bucket=0)


def _require_unused(path: Path) -> None:
    """Two deployments in one folder would overwrite each other's proof."""
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            alive = _locked(file)
        finally:
            os.close(file)
        if alive:
            raise RecordError(
                f"{path}: another living worker writes it; give each server a record folder "
                "of its own"
            )


def _temporary(name: str) -> str:
    return f".{name}.{os.getpid()}"


def _create(directory: Path, name: str) -> int:
    # Group-readable: a sidecar shares the pod's group, not always its user.
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = directory / _temporary(name)
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o640)
    os.fchmod(file, 0o640)
    os.posix_fallocate(file, 0, layout.SIZE)  # a full disk is an error here, not a signal later
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def record_paths(directory: Path) -> tuple[Path, ...]:
    """Every record file in a folder, by name; none if there is no folder."""
    return tuple(sorted(directory.glob(f"*{_SUFFIX}")))


def read_records(directory: Path) -> tuple[Record, ...]:
    """Every record in a folder, by file name; none if there is no folder.

    Raises:
        RecordError: one of them cannot be read.
    """
    return tuple(read_record(path) for path in record_paths(directory))


def read_record(path: Path) -> Record:
    """One record, as it stands.

    Raises:
        RecordError: the file cannot be read, or is no record of this version; `reason` in one word.
    """
    return RecordReader(path).read()


class RecordReader:
    """Reads one record again and again: a slot that did not change keeps its `Totals` object.

    A slot that is torn at one read is told as it was at the read before: totals never fall.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generation = 0
        self._bytes = b""
        self._slots: list[layout.SlotLayout | None] = []

    def read(self) -> Record:
        """The record, as it stands.

        Raises:
            RecordError: as `read_record`.
        """
        path = self._path
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}", reason="unreadable") from error
        try:
            return self._read(file)
        except OSError as error:
            raise RecordError(f"{path}: {error.strerror}", reason="unreadable") from error
        except BadRecord as error:
            raise RecordError(f"{path}: {error}", reason=error.reason) from error
        finally:
            os.close(file)

    def _read(self, file: int) -> Record:
        alive = _locked(file)
        front = os.pread(file, layout.SLOTS_AT, 0)
        header = layout.unpack_header(front, os.fstat(file).st_size)
        proof, proof_fault = _proof(layout.unpack_proof(front))
        found, torn = self._read_slots(file, header)
        totals = {slot.key: slot.totals for slot in found if slot}
        last = max((slot.last for slot in found if slot and slot.last), default=None)
        return Record(
            path=self._path,
            rank=header.rank,
            pid=header.pid,
            generation=header.generation,
            recaptures=header.recaptures,
            clock_hertz=header.clock_hertz,
            started_seconds=header.started / _SECOND,
            last_step_seconds=None if last is None else last / _SECOND,
            alive=alive,
            telemetry_failed=Flags.TELEMETRY_FAILED in header.flags,
            slots_dropped=header.slots_dropped,
            slots_torn=torn,
            proof=proof,
            proof_fault=proof_fault,
            totals=totals,
        )

    def _read_slots(self, file: int, header: Header) -> tuple[list[layout.SlotLayout | None], int]:
        """Every slot, None for one that was never hit, and how many have no whole cell."""
        size = layout.SLOT_BYTES
        read = os.pread(file, header.slots_used * size, layout.SLOTS_AT)
        if len(read) < header.slots_used * size:
            raise BadRecord("truncated", "it became shorter while it was read")
        if header.generation != self._generation:
            self._bytes, self._slots = b"", []
        found: list[layout.SlotLayout | None] = []
        torn = 0
        for number in range(header.slots_used):
            at = number * size
            known = self._slots[number] if number < len(self._slots) else None
            if number < len(self._slots) and read[at : at + size] == self._bytes[at : at + size]:
                found.append(known)
                continue
            try:
                slot = layout.unpack_slot(read, at, header.clock_hertz)
            except ValueError:
                slot = _slot_again(file, number, header)
                torn += slot is None
                slot = slot or known
            found.append(slot)
        # What was torn is never kept: its bytes may be the same at the next time and still torn.
        if not torn:
            self._generation, self._bytes, self._slots = header.generation, read, found
        return found, torn


def _proof(found: Mapping[str, Any]) -> tuple[Proof | None, str | None]:
    """The proof, or why it cannot be taken; neither before the first one."""
    try:
        return (proof_from_json(found) if found else None), None
    except BadProof as error:
        return None, str(error)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _slot_again(file: int, number: int, header: Header) -> layout.SlotLayout | None:
    """A slot whose cells were both being written while they were read."""
    for _ in range(_READS):
        time.sleep(_PAUSE_SECONDS)
        cells = os.pread(file, layout.SLOT_BYTES, layout.slot_offset(number))
        with contextlib.suppress(ValueError, struct.error):
            return layout.unpack_slot(cells, 0, header.clock_hertz)
    return None
