"""The folder of records, scrape by scrape: who lives, who died when, what cannot be read."""

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moe_serve.errors import RecordError
from moe_serve.telemetry.record import Record, RecordReader, record_paths

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A readable record; `fresh`: its worker lives, or has been dead for less than the TTL."""

    record: Record
    fresh: bool


class Sources:
    """Reads the folder and remembers between scrapes."""

    def __init__(
        self, directory: Path, *, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ttl`: seconds for which a dead worker's totals stay, so that the last ones are seen."""
        self.directory = directory
        self.errors: Counter[str] = Counter()
        self._ttl, self._clock = ttl, clock
        self._died: dict[tuple[Path, int], float] = {}
        self._said: dict[Path, str] = {}
        self._readers: dict[Path, RecordReader] = {}

    def read(self) -> list[Source]:
        """Every readable record, one a rank, by file name; what is wrong is counted and said."""
        newest: dict[str, Record] = {}
        for record in self._records():
            other = newest.get(record.rank.name)
            if other is not None:
                self.fault(record.path, "duplicate_rank", f"{record.path} and {other.path} are "
                           f"both of {record.rank.name}; the newer one counts")  # fmt: skip
            if other is None or other.generation < record.generation:
                newest[record.rank.name] = record
        return [Source(record=record, fresh=self._is_fresh(record)) for record in newest.values()]

    def fault(self, path: Path, reason: str, message: str) -> None:
        """Count an error at every scrape, and say it when it is new."""
        self.errors[reason] += 1
        if self._said.get(path) != message:
            self._said[path] = message
            logger.warning("%s", message)

    def _records(self) -> Iterator[Record]:
        if not self.directory.is_dir():
            self.fault(self.directory, "no_folder", f"{self.directory}: there is no such folder "
                       "yet; a worker makes it when it loads its model")  # fmt: skip
        elif not os.access(self.directory, os.R_OK | os.X_OK):
            self.fault(self.directory, "unreadable", f"{self.directory}: it may not be read by "
                       f"user {os.getuid()}; share the workers' group")  # fmt: skip
        paths = record_paths(self.directory)
        self._readers = {path: self._readers.get(path) or RecordReader(path) for path in paths}
        for path, reader in self._readers.items():
            try:
                yield reader.read()
            except RecordError as error:
                self.fault(path, error.reason, str(error))

    def _is_fresh(self, record: Record) -> bool:
        life = record.path, record.generation
        if record.alive:
            self._died.pop(life, None)
            return True
        return self._clock() - self._died.setdefault(life, self._clock()) < self._ttl
