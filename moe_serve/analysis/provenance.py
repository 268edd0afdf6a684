"""What a source was asked for the samples behind each number, so that a person can ask it again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from moe_serve.analysis.series import CellKind, Floats

# Metric names, start and end in seconds since the epoch -> what to ask.
QueryBuilder = Callable[[Sequence[str], float, float], str]


class Subject(StrEnum):
    """What samples are of; one query a subject."""

    STEP = "step"
    KERNEL = "kernel"
    PROCESSES = "processes"
    CONFIGURATION = "configuration"
    BYTES = "bytes"
    TTFT = "ttft"
    ITL = "itl"
    PREEMPTIONS = "preemptions"
    REQUESTS = "requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One subject's: `expression` asks `source` for its samples in the verdict's window.

    There were so many `samples` of so many `series`; none where the source has no such series.
    """

    subject: Subject
    source: str
    expression: str
    series: int
    samples: int

    def to_json(self, behind: Sequence[str]) -> dict[str, object]:
        """One entry of the verdict's `queries`; `behind` are names of the checks that it is for."""
        return {
            "subject": self.subject.value,
            "source": self.source,
            "expression": self.expression,
            "series": self.series,
            "samples": self.samples,
            "checks": list(behind),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectSeries:
    """What was read of a subject: `series` are (their times, how many have just these)."""

    names: tuple[str, ...]
    series: tuple[tuple[Floats, int], ...]

    def within(self, start: float, end: float) -> tuple[int, int]:
        """(series, samples) between two times, both included."""
        found = [
            (many, int(np.searchsorted(at, end, "right") - np.searchsorted(at, start, "left")))
            for at, many in self.series
        ]
        return sum(many for many, n in found if n), sum(many * n for many, n in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which source a history came from, and how to query each subject's samples again.

    `source` is its address without credentials.
    """

    source: str
    build_query: QueryBuilder
    read: Mapping[Subject, SubjectSeries]

    def queries(self, start: float, end: float) -> tuple[Query, ...]:
        """Every subject's query for a window."""
        return tuple(
            Query(
                subject=subject,
                source=self.source,
                expression=self.build_query(read.names, start, end),
                series=series,
                samples=samples,
            )
            for subject, read in self.read.items()
            for series, samples in [read.within(start, end)]
        )


# By the check's name, or by its guard's; a check that is not here is of the rate that decides.
_CHECKS: Mapping[str, tuple[Subject, ...]] = {
    "guard_ttft": (Subject.TTFT,),
    "guard_itl": (Subject.ITL,),
    "guard_errors": (Subject.REQUESTS,),
    "guard_preemptions": (Subject.PREEMPTIONS, Subject.REQUESTS),
    "traffic_split": (Subject.REQUESTS,),
    "same_configuration": (Subject.CONFIGURATION,),
    "configuration_known": (Subject.CONFIGURATION,),
    "within_byte_bound": (Subject.KERNEL, Subject.BYTES),
    "same_answers": (),  # from the comparison of answers
    "design": (),  # declared
}
_OF_PROCESSES = ("arms_alive", "data_fresh", "void_windows")


def behind(query: Query, checks: Iterable[str], primary: CellKind) -> tuple[str, ...]:
    """The names among `checks` whose numbers rest on a query's samples."""
    return tuple(name for name in checks if query.subject in _subjects(name, primary))


def _subjects(check: str, primary: CellKind) -> tuple[Subject, ...]:
    rate = Subject(primary.value)
    if check in _OF_PROCESSES:
        return (rate, Subject.PROCESSES)
    guard = "_".join(check.split("_")[:2]) if check.startswith("guard_") else check
    return _CHECKS.get(guard, (rate,))
