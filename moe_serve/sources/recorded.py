"""A recorded history: OpenMetrics text with timestamps, as promtool makes blocks from."""

import hashlib
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from moe_serve.analysis.history import History
from moe_serve.errors import SourceError
from moe_serve.sources.assemble import ArmSelector, QuerySource, assemble
from moe_serve.sources.names import NAMES
from moe_serve.sources.streams import Stream, Streams, append, parse_key

_KNOWN = frozenset(NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A file of samples; other metrics in it are passed over."""

    path: Path
    arms: ArmSelector = field(default_factory=ArmSelector)

    def history(self, start: float, end: float) -> History:
        """Both arms between two times, seconds since the epoch.

        Raises:
            SourceError: it cannot be read, a line is malformed, or it holds none of the arms.
        """
        try:
            with self.path.open(encoding="utf-8") as lines:
                streams = read(lines, str(self.path), start, end)
            with self.path.open("rb") as whole:
                digest = hashlib.file_digest(whole, "sha256").hexdigest()
        except (OSError, UnicodeDecodeError) as error:
            text = getattr(error, "strerror", None) or "not UTF-8 text"
            raise SourceError(f"{self.path}: {text}") from error
        query_source = QuerySource(
            source=f"recorded file {self.path} (sha256 {digest})", build_query=self._words
        )
        return assemble(
            streams, self.arms, start, end, f"recorded file {self.path.name}", query_source
        )

    def _words(self, names: Sequence[str], start: float, end: float) -> str:
        arms = f'{self.arms.label}="({self.arms.pattern})"'
        pattern = rf"^({'|'.join(names)})\{{(.*,)?{arms}"
        return (
            f"grep -E {shlex.quote(pattern)} {shlex.quote(str(self.path))} | "
            f"awk '$NF >= {start!r} && $NF <= {end!r}'"
        )

    def span(self) -> tuple[float, float]:
        """The times of the first and the last sample.

        Raises:
            SourceError: as `history`.
        """
        try:
            with self.path.open(encoding="utf-8") as lines:
                streams = read(lines, str(self.path), -math.inf, math.inf)
        except (OSError, UnicodeDecodeError) as error:
            text = getattr(error, "strerror", None) or "not UTF-8 text"
            raise SourceError(f"{self.path}: {text}") from error
        ends = [(s.times[0], s.times[-1]) for s in streams if s.times]
        if not ends:
            raise SourceError(f"{self.path}: no sample of the metrics that the judge reads")
        return min(first for first, _ in ends), max(last for _, last in ends)


def read(lines: Iterable[str], name: str, start: float, end: float) -> Streams:
    """The samples in [start, end].

    Raises:
        SourceError: a line is malformed, with its number.
    """
    streams = Streams()
    foreign: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if line[0] in "#\n":
            continue
        try:
            key, value, stamp = line.rsplit(" ", 2)
            if key in foreign:
                continue
            time = float(stamp)
            sample = float(value)
        except ValueError as error:
            raise SourceError(f"{name}, line {number}: no `name{{labels}} value time`") from error
        if not start <= time <= end:
            continue
        found = streams.stream(key)
        if found is None:
            metric, labels = parse_key(key)
            if metric not in _KNOWN:
                foreign.add(key)
                continue
            found = streams.add(key, metric, labels)
        append(found, time, sample)
    return streams


def write(streams: Streams, out: TextIO) -> None:
    """OpenMetrics text, a family after the other."""
    by_name: dict[str, list[Stream]] = {}
    for stream in streams:
        by_name.setdefault(stream.name, []).append(stream)
    for name, found in by_name.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        out.write(f"# TYPE {name.removesuffix('_total')} {kind}\n")
        out.writelines(line for stream in found for line in _samples(stream))
    out.write("# EOF\n")


def _samples(stream: Stream) -> Iterator[str]:
    labels = ",".join(f'{label}="{_escaped(v)}"' for label, v in sorted(stream.labels.items()))
    key = f"{stream.name}{{{labels}}}"
    for time, value in zip(stream.times, stream.values, strict=True):
        yield f"{key} {value!r} {time!r}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
