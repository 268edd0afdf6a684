"""From series of samples to the judge's history: pods, ranks, cells."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_serve.analysis.history import ArmHistory, History, PodSeries
from moe_serve.analysis.provenance import Provenance, QueryBuilder, Subject, SubjectSeries
from moe_serve.analysis.series import OVERFLOW, Cell, CellKind, Floats
from moe_serve.analysis.service import CounterSeries, Measure
from moe_serve.errors import SourceError
from moe_serve.sources import names
from moe_serve.sources.facts import facts
from moe_serve.sources.streams import Stream, Streams

_SUBJECTS = {
    Subject.PROCESSES: names.GENERATION,
    Subject.CONFIGURATION: (*names.INFOS, *names.NEURONS, names.MOE_LAYERS),
    Subject.BYTES: (names.KERNEL_BYTES,),
    Subject.TTFT: (names.TTFT_BUCKETS,),
    Subject.ITL: (names.ITL_BUCKETS,),
    Subject.PREEMPTIONS: (names.PREEMPTIONS,),
    Subject.REQUESTS: (names.REQUESTS,),
}
# vLLM's counter of finished requests has every reason, `error` included.
_MEASURES = {
    names.TTFT_BUCKETS: (Measure.TTFT,),
    names.ITL_BUCKETS: (Measure.ITL,),
    names.PREEMPTIONS: (Measure.PREEMPTED,),
    names.REQUESTS: (Measure.FINISHED, Measure.FAILED),
}
# The names of a count and of its busy seconds, by kind.
_Rates = Mapping[CellKind, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSelector:
    """How samples tell their arm: a label, and its value for each."""

    label: str = "track"
    stable: str = "stable"
    canary: str = "canary"

    @property
    def pattern(self) -> str:
        """A regular expression for both values and no other, in RE2's words as in grep's."""
        return "|".join(
            re.sub(r"([][\\.+*?(){}|^$])", r"\\\1", value) for value in (self.stable, self.canary)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySource:
    """How a source is asked: its address or name, and what to ask it for given metrics."""

    source: str
    build_query: QueryBuilder


def assemble(
    streams: Streams,
    arms: ArmSelector,
    start: float,
    end: float,
    origin: str,
    query_source: QuerySource | None = None,
) -> History:
    """Both arms' history; without a `query_source` nobody is told how to ask again.

    Raises:
        SourceError: no series of the judge's names carries the arms' label.
    """
    by_arm = {
        name: [s for s in streams if s.labels.get(arms.label) == value]
        for name, value in (("stable", arms.stable), ("canary", arms.canary))
    }
    if not any(by_arm.values()):
        raise SourceError(
            f"{origin}: no series with {arms.label}={arms.stable!r} or {arms.canary!r}; are the "
            f"exporters scraped, and relabelled with {arms.label!r}?"
        )
    steps = all(any(s.name == names.STEP[0] for s in found) for found in by_arm.values() if found)
    measures = {CellKind.STEP: names.STEP if steps else names.WINDOW, CellKind.KERNEL: names.KERNEL}
    cells = _cells(by_arm, measures)
    return History(
        cells=cells,
        stable=_arm("stable", by_arm["stable"], cells, measures, arms.label),
        canary=_arm("canary", by_arm["canary"], cells, measures, arms.label),
        start=start,
        end=end,
        origin=f"{origin}; steps timed as {'whole steps' if steps else 'forward windows'}"
        + _void(streams),
        provenance=None
        if query_source is None
        else _provenance(query_source, by_arm.values(), measures),
    )


def _provenance(
    query_source: QuerySource,
    by_arm: Iterable[Sequence[Stream]],
    measures: _Rates,
) -> Provenance:
    rates = {Subject(kind.value): found for kind, found in measures.items()}
    by_name: dict[str, list[Stream]] = {}
    for stream in itertools.chain.from_iterable(by_arm):
        by_name.setdefault(stream.name, []).append(stream)
    return Provenance(
        source=query_source.source,
        build_query=query_source.build_query,
        read={
            subject: SubjectSeries(
                names=found, series=_alike(s for name in found for s in by_name.get(name, ()))
            )
            for subject, found in {**rates, **_SUBJECTS}.items()
        },
    )


def _alike(streams: Iterable[Stream]) -> tuple[tuple[Floats, int], ...]:
    """A pod's series mostly have the same times, which are kept once."""
    found = Counter(stream.times.tobytes() for stream in streams)
    return tuple((np.frombuffer(times), many) for times, many in found.items())


def _cells(by_arm: Mapping[str, Sequence[Stream]], measures: _Rates) -> tuple[Cell, ...]:
    found = {
        cell
        for streams in by_arm.values()
        for stream in streams
        for kind, (count, _) in measures.items()
        if stream.name == count and (cell := cell_of(kind, stream.labels)) is not None
    }
    return tuple(sorted(found, key=lambda cell: cell.order))


def cell_of(kind: CellKind, labels: Mapping[str, str]) -> Cell | None:
    """The cell of a series, None for a drafter's. What has no batch size (`+Inf`) keeps its busy
    time, so that it is named as not covered.
    """
    bucket, layer = labels.get("bucket", ""), labels.get("layer", "")
    if labels.get("role", "target") != "target":
        return None
    if kind is CellKind.KERNEL and not layer.isdecimal():
        return None
    return Cell(
        kind=kind,
        layer=int(layer) if kind is CellKind.KERNEL else None,
        bucket=int(bucket) if bucket.isdecimal() else OVERFLOW,
        phase=labels.get("phase", ""),
        mode=labels.get("mode", ""),
    )


def _arm(
    name: str,
    streams: Sequence[Stream],
    cells: tuple[Cell, ...],
    measures: _Rates,
    label: str,
) -> ArmHistory:
    by_pod: dict[str, list[Stream]] = {}
    for stream in streams:
        if stream.name.startswith("moe_serve_"):
            by_pod.setdefault(_pod(stream), []).append(stream)
    place = {cell: number for number, cell in enumerate(cells)}
    return ArmHistory(
        name=name,
        pods=tuple(_pod_series(pod, by_pod[pod], place, measures) for pod in sorted(by_pod)),
        facts=facts(by_pod.values(), arm_label=label),
        service=tuple(_service(streams)),
        neurons=_neurons(streams),
        bytes_ratio=_bytes_ratio(streams),
        moe_layers=_largest(streams, names.MOE_LAYERS),
        began=_began(streams),
    )


def _pod(stream: Stream) -> str:
    labels = stream.labels
    return labels.get("pod") or labels.get("instance") or "unnamed"


def _pod_series(
    pod: str,
    streams: Sequence[Stream],
    place: Mapping[Cell, int],
    measures: _Rates,
) -> PodSeries:
    times = np.unique(np.concatenate([np.frombuffer(s.times) for s in streams]))
    ranks = sorted({stream.labels.get("rank", "") for stream in streams})
    shape = (len(ranks), len(times), len(place))
    counts, busy = np.full(shape, np.nan), np.full(shape, np.nan)
    targets = {
        name: (kind, into)
        for kind, pair in measures.items()
        for name, into in zip(pair, (counts, busy), strict=True)
    }
    for stream in streams:
        kind, into = targets.get(stream.name, (None, None))
        cell = cell_of(kind, stream.labels) if kind is not None else None
        if cell is None or into is None or cell not in place:
            continue
        rank = ranks.index(stream.labels.get("rank", ""))
        column = into[rank, :, place[cell]]
        at = np.searchsorted(times, np.frombuffer(stream.times))
        # One cell may have several series: exporters of one pod, sizes that are not known.
        column[at] = np.nan_to_num(column[at]) + np.frombuffer(stream.values)
    return PodSeries(
        pod=pod,
        times=times,
        counter_generation=_counter_generation(streams, times),
        counts=_summed(counts),
        busy=_summed(busy),
    )


def _summed(by_rank: Floats) -> Floats:
    """Sum over ranks; where a rank that had the cell lacks it now, nothing is known."""
    seen = np.logical_or.accumulate(~np.isnan(by_rank), axis=1)
    lost = (np.isnan(by_rank) & seen).any(axis=0)
    never = ~seen.any(axis=0)
    whole: Floats = np.where(lost | never, np.nan, np.nan_to_num(by_rank, posinf=np.inf).sum(0))
    return whole


def _counter_generation(streams: Iterable[Stream], times: Floats) -> Floats:
    """A number for each scrape that changes whenever any rank's process or graphs do."""
    rows = []
    for stream in streams:
        if stream.name in names.GENERATION:
            row = np.full(len(times), -1.0)
            row[np.searchsorted(times, np.frombuffer(stream.times))] = stream.values
            rows.append(row)
    if not rows:
        return np.zeros(len(times))
    _, life = np.unique(np.stack(rows, axis=1), axis=0, return_inverse=True)
    return life.reshape(-1).astype(np.float64)


def _began(streams: Sequence[Stream]) -> float | None:
    """When the oldest of the processes started that ran last in the arm's pods."""
    starts = [np.asarray(each.values) for each in streams if each.name == names.PROCESS_START]
    last = [known[-1] for each in starts if (known := each[np.isfinite(each)]).size]
    return float(min(last)) if last else None


def _neurons(streams: Sequence[Stream]) -> tuple[int, int] | None:
    lost, live = (_largest(streams, name) for name in names.NEURONS)
    return None if lost is None or live is None else (lost, live)


def _bytes_ratio(streams: Sequence[Stream]) -> float | None:
    """Bytes fetched over bytes needed, over all timed MoE calls of the arm's processes so far."""
    totals = {"executed": 0.0, "unpadded": 0.0}
    for stream in streams:
        if stream.name == names.KERNEL_BYTES and (basis := stream.labels.get("basis")) in totals:
            totals[basis] += stream.values[-1]
    fetched, needed = totals.values()
    known = np.isfinite([fetched, needed]).all() and min(fetched, needed) > 0
    return fetched / needed if known else None


def _largest(streams: Sequence[Stream], name: str) -> int | None:
    """Of all pods' and ranks' last values of a gauge; None if one of them is no number."""
    found = [stream.values[-1] for stream in streams if stream.name == name]
    return int(max(found)) if found and np.isfinite(found).all() else None


def _service(streams: Iterable[Stream]) -> Iterator[CounterSeries]:
    for stream in streams:
        for measure in _MEASURES.get(stream.name, ()):
            if measure is Measure.FAILED and stream.labels.get("finished_reason") != "error":
                continue
            yield CounterSeries(
                measure=measure,
                edge=_edge(stream),
                times=np.array(stream.times),
                values=np.array(stream.values),
            )


def _edge(stream: Stream) -> float:
    text = stream.labels.get("le", "0")
    try:
        edge = float(text)
    except ValueError:
        edge = np.nan
    if np.isnan(edge):
        raise SourceError(f"{stream.name}: le={text[:40]!r} is no bucket's edge; who exports it?")
    return edge


def _void(streams: Iterable[Stream]) -> str:
    """Samples that are no numbers, by name: none of them counts."""
    found: dict[str, int] = {}
    for stream in streams:
        if void := int((~np.isfinite(np.frombuffer(stream.values))).sum()):
            found[stream.name] = found.get(stream.name, 0) + void
    if not found:
        return ""
    told = ", ".join(f"{count} of {name}" for name, count in sorted(found.items()))
    return f"; void, as they are no finite numbers: {told}"
