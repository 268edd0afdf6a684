"""The folder of records at each scrape: living workers, dead ones, files that cannot be read."""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import RecordError
from moe_serve.telemetry.record import Record, RecordReader, record_paths

logger = logging.getLogger(__name__)

_RANK = re.compile(r"dp\d+-pp\d+-tp\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSource:
    """A readable record; `fresh`: its worker lives, or ended less than the TTL ago."""

    record: Record
    fresh: bool


class Sources:
    """Reads the folder and remembers between scrapes.

    `errors` counts since the start; `faults` and `unreadable`, the ranks whose file cannot be read,
    are of the last read.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        log_level: int = logging.WARNING,
    ) -> None:
        """`ttl`: seconds for which a dead worker's totals stay, so that the last ones are seen."""
        self.directory = directory
        self.errors: Counter[str] = Counter()
        self.faults: list[str] = []
        self.unreadable: set[str] = set()
        self._ttl, self._clock, self._log_level = ttl, clock, log_level
        self._died: dict[tuple[Path, int], float] = {}
        self._logged: set[str] = set()
        self._readers: dict[Path, RecordReader] = {}

    def read(self) -> list[RecordSource]:
        """Every readable record, one per rank, by file name; faults are counted and logged."""
        self._logged, self.faults, self.unreadable = set(self.faults), [], set()
        newest: dict[str, Record] = {}
        for record in self._records():
            other = newest.get(record.rank.name)
            if other is not None:
                self.fault("duplicate_rank", f"{record.path} and {other.path} are both of "
                           f"{record.rank.name}; the living one counts, or the newer")  # fmt: skip
            if other is None or _precedence(other) < _precedence(record):
                newest[record.rank.name] = record
        self.unreadable -= newest.keys()
        return [
            RecordSource(record=record, fresh=self._is_fresh(record)) for record in newest.values()
        ]

    def fault(self, reason: str, message: str) -> None:
        """Count an error at every scrape, and log it when it is new."""
        self.errors[reason] += 1
        self.faults.append(message)
        if message not in self._logged:
            logger.log(self._log_level, "%s", message)

    def _records(self) -> Iterator[Record]:
        paths = record_paths(self.directory) if self._can_list() else ()
        self._readers = {path: self._readers.get(path) or RecordReader(path) for path in paths}
        for path, reader in self._readers.items():
            try:
                yield reader.read()
            except RecordError as error:
                self.fault(error.reason, str(error))
                self.unreadable |= {path.stem} if _RANK.fullmatch(path.stem) else set()

    def _can_list(self) -> bool:
        try:
            os.scandir(self.directory).close()
        except FileNotFoundError:
            self.fault("no_folder", f"{self.directory}: there is no such folder yet; a worker "
                       "makes it when it loads its model")  # fmt: skip
        except OSError as error:
            self.fault("unreadable", f"{self.directory}: {error.strerror} for user {os.getuid()}; "
                       "give the workers' folder, and share their group")  # fmt: skip
        else:
            return True
        return False

    def _is_fresh(self, record: Record) -> bool:
        life = record.path, record.generation
        if record.alive:
            self._died.pop(life, None)
            return True
        return self._clock() - self._died.setdefault(life, self._clock()) < self._ttl


def _precedence(record: Record) -> tuple[bool, int]:
    # A copy of a living worker's file has the same generation but no writer.
    return record.alive, record.generation
