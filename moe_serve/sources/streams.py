"""Samples by series, as every source collects them."""

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from moe_serve.errors import SourceError
from moe_serve.sources.names import NAMES

_KNOWN = frozenset(NAMES)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Stream:
    """One series: its labels, and its samples' times (seconds since the epoch) and values."""

    name: str
    labels: Mapping[str, str]
    times: "array[float]"
    values: "array[float]"


@dataclass(slots=True)
class Streams:
    """All series of a stretch of time. A sample not later than its series' last is dropped."""

    _by_key: dict[str, Stream] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Stream]:
        """Every series, in the order of their first samples."""
        return iter(self._by_key.values())

    def stream(self, key: str) -> Stream | None:
        """The series of a key (`name{labels}` as it was written), None if it is new."""
        return self._by_key.get(key)

    def add(self, key: str, name: str, labels: Mapping[str, str]) -> Stream:
        """A new series."""
        made = Stream(name, labels, array("d"), array("d"))
        self._by_key[key] = made
        return made

    def drop_before(self, time: float) -> None:
        """Forget samples before a time, so that a long watch stays in bounds."""
        for key, stream in list(self._by_key.items()):
            first = next((n for n, at in enumerate(stream.times) if at >= time), None)
            if first is None:
                del self._by_key[key]
            elif first:
                del stream.times[:first], stream.values[:first]


def append(stream: Stream, time: float, value: float) -> None:
    """One sample more, unless it is not later than the last one."""
    if not stream.times or time > stream.times[-1]:
        stream.times.append(time)
        stream.values.append(value)


def samples(text: str) -> Iterator[tuple[str, float]]:
    """The judge's samples in an exporter's answer: key and value.

    Raises:
        SourceError: a value is no number.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        key, space, value = line.rpartition(" ")
        if not space or line.startswith("#") or parse_key(key)[0] not in _KNOWN:
            continue
        try:
            yield key, float(value)
        except ValueError as error:
            raise SourceError(f"line {number}: {value[:40]!r} is no number") from error


def parse_key(key: str) -> tuple[str, dict[str, str]]:
    """`name{a="b"}` as (name, labels)."""
    name, brace, rest = key.partition("{")
    if not brace:
        return name, {}
    return name, {label: _ESCAPED.sub(_plain, value) for label, value in _LABEL.findall(rest)}


def _plain(match: "re.Match[str]") -> str:
    return "\n" if match[1] == "n" else str(match[1])
