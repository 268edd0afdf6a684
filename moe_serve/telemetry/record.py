"""Write and read a worker's record file.

One file a rank. The writer holds a lock on it for life, so that a reader in another container,
which cannot see the writer's pid, knows whether it lives; an idle writer keeps the lock and an old
heartbeat. Updates go under a sequence count, odd while they last.
"""

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import RecordError
from moe_serve.telemetry import layout
from moe_serve.telemetry.layout import (
    CAPACITY,
    Flags,
    Header,
    Kind,
    Mode,
    Rank,
    SlotKey,
    Totals,
)

__all__ = [
    "Kind", "Mode", "Rank", "Record", "RecordWriter", "SlotKey", "Totals", "read_record",
    "read_records",
]  # fmt: skip

_SUFFIX = ".record"
_READS, _PAUSE_SECONDS = 200, 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One rank's record at one moment. `alive`: its writer still holds the lock.

    `pid` is the writer's in its own container: another container cannot use it.
    """

    path: Path
    rank: Rank
    pid: int
    generation: int
    heartbeat_seconds: float
    alive: bool
    telemetry_failed: bool
    slots_dropped: int
    proof: Mapping[str, Any]
    totals: Mapping[SlotKey, Totals]


class RecordWriter:
    """The one writer of a rank's record; not for use across a fork, or by two threads."""

    def __init__(
        self, directory: Path, rank: Rank, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Create the file whole, then put it in the place of an older one.

        Raises:
            RecordError: the folder or the file cannot be made.
        """
        self.pid = os.getpid()
        self._clock = clock
        self._slots: dict[SlotKey, list[int]] = {}
        self._dropped, self._flags = 0, Flags.NONE
        self._rank, self._generation = rank, time.time_ns()
        self._sequence = 0
        try:
            self._file = _create(directory, rank.file_name)
        except OSError as error:
            raise RecordError(f"{directory}: no record can be made: {error.strerror}") from error
        self._buffer = mmap.mmap(self._file, layout.SIZE)
        with self._update():
            pass
        (directory / _temporary(rank.file_name)).replace(directory / rank.file_name)

    def prove(self, proof: Mapping[str, object]) -> None:
        """Replace the proof."""
        with self._update():
            layout.pack_proof(self._buffer, proof)

    def add(self, key: SlotKey, nanoseconds: int) -> None:
        """Add one measurement to its slot; beyond the capacity it is counted as dropped."""
        totals = self._slots.get(key)
        if totals is None:
            if len(self._slots) == CAPACITY:
                self._dropped += 1
                with self._update():
                    return
            totals = self._slots[key] = [len(self._slots), 0, 0, 0]
        totals[1] += 1
        totals[2] += nanoseconds
        totals[3] = max(totals[3], nanoseconds)
        with self._update():
            layout.pack_slot(
                self._buffer, totals[0], key,
                count=totals[1], nanoseconds=totals[2], longest=totals[3],
            )  # fmt: skip

    def fail(self) -> None:
        """Say for good that the totals are not to be trusted."""
        self._flags |= Flags.TELEMETRY_FAILED
        with self._update():
            pass

    def close(self) -> None:
        """Let go of the lock; the file stays, as a dead writer's."""
        self._buffer.close()
        os.close(self._file)

    @contextlib.contextmanager
    def _update(self) -> Iterator[None]:
        layout.SEQUENCE.pack_into(self._buffer, layout.SEQUENCE_AT, self._sequence + 1)
        try:
            yield
        finally:
            self._sequence += 2
            header = Header(
                generation=self._generation,
                heartbeat_seconds=self._clock(),
                pid=self.pid,
                rank=self._rank,
                flags=self._flags,
                slots_used=len(self._slots),
                slots_dropped=self._dropped,
            )
            layout.pack_header(self._buffer, header, self._sequence - 1)
            layout.SEQUENCE.pack_into(self._buffer, layout.SEQUENCE_AT, self._sequence)


def _temporary(name: str) -> str:
    return f".{name}.{os.getpid()}"


def _create(directory: Path, name: str) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / _temporary(name)
    path.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, 0o644)
    os.ftruncate(file, layout.SIZE)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def read_record(path: Path) -> Record:
    """One record, as it stands.

    Raises:
        RecordError: the file cannot be read, or is no record of this version.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from error
    try:
        alive = _locked(file)
        return _parse(path, _whole(path, file), alive=alive)
    finally:
        os.close(file)


def read_records(directory: Path) -> tuple[Record, ...]:
    """Every record in a folder, by file name; none if there is no folder.

    Raises:
        RecordError: one of them cannot be read.
    """
    return tuple(read_record(path) for path in sorted(directory.glob(f"*{_SUFFIX}")))


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _whole(path: Path, file: int) -> bytes:
    for _ in range(_READS):
        before = os.pread(file, layout.SIZE + 1, 0)
        if len(before) != layout.SIZE or not before.startswith(layout.MAGIC):
            return before  # no record: the parser says so
        after = os.pread(file, layout.SEQUENCE_AT + layout.SEQUENCE.size, 0)
        sequence = layout.sequence_of(before)
        if sequence % 2 == 0 and layout.sequence_of(after) == sequence:
            return before
        time.sleep(_PAUSE_SECONDS)
    raise RecordError(f"{path}: its writer never came to rest in {_READS} reads")


def _parse(path: Path, buffer: bytes, *, alive: bool) -> Record:
    try:
        header = layout.unpack_header(buffer)
        return Record(
            path=path,
            rank=header.rank,
            pid=header.pid,
            generation=header.generation,
            heartbeat_seconds=header.heartbeat_seconds,
            alive=alive,
            telemetry_failed=Flags.TELEMETRY_FAILED in header.flags,
            slots_dropped=header.slots_dropped,
            proof=layout.unpack_proof(buffer),
            totals=layout.unpack_slots(buffer, header.slots_used),
        )
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
