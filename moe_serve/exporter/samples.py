"""One rank's record as samples of the catalogue. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from moe_serve.exporter.catalogue import METRICS, Type
from moe_serve.exporter.proof import Facts, moe_shape
from moe_serve.exporter.roofline import MoeShape, dtype_of, floor_seconds, peaks_of, work
from moe_serve.telemetry.record import Record
from moe_serve.telemetry.slots import (
    EAGER_BUCKETS,
    HISTOGRAM_SECONDS,
    OVERFLOW,
    Kind,
    Mode,
    Model,
    Phase,
    SlotKey,
    Totals,
)

Labels = tuple[str, ...]
STATES = ("on", "off", "failed", "over_budget", "unsupported")
# Series of a histogram: a bound each, +Inf, count and sum.
_HISTOGRAM_SERIES = len(HISTOGRAM_SECONDS) + 3
_COUNTERS = frozenset(name for name, metric in METRICS.items() if metric.type is Type.COUNTER)
_BASES = (("unpadded", False), ("executed", True))
_SINGLE_SERIES = 64  # of a rank: everything that is not a slot's


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A histogram's counts, not cumulative and with those above the last bound, and its sum."""

    counts: tuple[int, ...]
    sum: float

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus has them."""
        bounds = [*(f"{bound:.9g}" for bound in HISTOGRAM_SECONDS), "+Inf"]
        return [(bound, float(n)) for bound, n in zip(bounds, accumulate(self.counts), strict=True)]


class Samples:
    """Values by metric and labels; equal labels add up in counters."""

    def __init__(self) -> None:
        self.values: dict[str, dict[Labels, float]] = defaultdict(dict)
        self.histograms: dict[str, dict[Labels, Distribution]] = defaultdict(dict)

    def put(self, name: str, value: float | None, *labels: str) -> None:
        """Set a gauge, or add to a counter; None is no sample."""
        if value is None:
            return
        series = self.values[name]
        if name in _COUNTERS and labels in series:
            value += series[labels]
        series[labels] = value

    def count(self) -> int:
        """How many series these are."""
        single = sum(map(len, self.values.values()))
        return single + _HISTOGRAM_SERIES * sum(map(len, self.histograms.values()))


def add_totals(samples: Samples, record: Record) -> None:
    """What was counted; only slots that were hit."""
    rank = record.rank.name
    groups: dict[tuple[Mode, Phase, int], list[Totals]] = defaultdict(list)
    for key, totals in record.totals.items():
        _ADDERS[key.kind](samples, rank, key, totals)
        if key.kind is Kind.KERNEL and key.model is Model.TARGET and key.layer is not None:
            groups[key.mode, key.phase, key.layer].append(totals)
    invalid = sum(totals.invalid for totals in record.totals.values())
    samples.put("invalid_samples_total", invalid, rank, "clock_backwards")
    samples.put("invalid_samples_total", record.slots_dropped, rank, "dropped")
    _add_calls(samples, rank, groups)


def _add_calls(
    samples: Samples, rank: str, groups: Mapping[tuple[Mode, Phase, int], list[Totals]]
) -> None:
    """What is told of the served model's timed calls whatever their size."""
    first = min((layer for _, _, layer in groups), default=None)
    modes: dict[tuple[Mode, Phase], list[Totals]] = defaultdict(list)
    longest: dict[int, float] = defaultdict(float)
    for (mode, phase, layer), each in groups.items():
        modes[mode, phase] += each
        longest[layer] = max(longest[layer], *(totals.max_seconds for totals in each))
        if layer == first:
            rows = sum(totals.tokens for totals in each)
            samples.put("tokens_total", rows, rank, phase, "computed")
    for (mode, phase), each in modes.items():
        rows = sum(totals.tokens for totals in each)
        samples.put("kernel_tokens_total", rows, rank, mode, phase)
        samples.histograms["kernel_duration_seconds"][rank, mode, phase] = Distribution(
            counts=tuple(map(sum, zip(*(totals.histogram for totals in each), strict=True))),
            sum=sum(totals.seconds for totals in each),
        )
    for layer, value in longest.items():
        samples.put("kernel_max_seconds", value, rank, str(layer))


def _kernel(samples: Samples, rank: str, key: SlotKey, totals: Totals) -> None:
    labels = rank, str(key.layer), _bucket(key), key.mode, key.phase, key.model
    # Not `put`: this is nearly every series there is.
    seconds = samples.values["kernel_seconds_total"]
    calls = samples.values["kernel_invocations_total"]
    seconds[labels] = seconds.get(labels, 0.0) + totals.seconds
    calls[labels] = calls.get(labels, 0.0) + totals.count


def _window(samples: Samples, rank: str, key: SlotKey, totals: Totals) -> None:
    labels = rank, _bucket(key), key.mode, key.phase
    samples.put("forward_window_seconds_total", totals.seconds, *labels)
    samples.put("forward_windows_total", totals.count, *labels)


def _step(samples: Samples, rank: str, key: SlotKey, totals: Totals) -> None:
    samples.put("step_seconds_total", totals.seconds, rank, _bucket(key), key.phase)
    samples.put("steps_timed_total", totals.count, rank, _bucket(key), key.phase)


def _schedule(samples: Samples, rank: str, key: SlotKey, totals: Totals) -> None:
    samples.put("steps_total", totals.count, rank, key.phase)
    samples.put("tokens_total", totals.tokens, rank, key.phase, "scheduled")


_ADDERS: Mapping[Kind, Callable[[Samples, str, SlotKey, Totals], None]] = {
    Kind.KERNEL: _kernel,
    Kind.WINDOW: _window,
    Kind.STEP: _step,
    Kind.SCHEDULE: _schedule,
}


def _bucket(key: SlotKey) -> str:
    return "+Inf" if key.bucket == OVERFLOW else str(key.bucket)


def add_roofline(samples: Samples, record: Record, facts: Facts) -> None:
    """Modelled work of the timed calls, where the shape is known, and the device's peaks."""
    rank, shape = record.rank.name, moe_shape(facts)
    if shape is None:
        return
    for dim in ("flops", "bytes"):
        samples.put("padding_waste_ratio", _waste(shape, dim), rank, dim)
    peaks, dtype = peaks_of(facts.text("device", "name")), _dtype(facts)
    flops = peaks.flops(dtype) if peaks and dtype else None
    if peaks and dtype and flops:
        samples.put("peak_flops", flops, rank, dtype, peaks.source)
        samples.put("peak_memory_bandwidth_bytes_per_second", peaks.bytes, rank, peaks.source)
    calls: dict[float, int] = defaultdict(int)
    for key, totals in record.totals.items():
        if key.kind is Kind.KERNEL and key.model is Model.TARGET and totals.count:
            calls[totals.tokens / totals.count] += totals.count
    for basis, executed in _BASES:
        each = [(work(shape, rows, executed=executed), count) for rows, count in calls.items()]
        samples.put("kernel_flops_total", sum(w.flops * n for w, n in each), rank, basis)
        samples.put("kernel_bytes_total", sum(w.bytes * n for w, n in each), rank, basis)
        if peaks and flops:
            floor = sum(floor_seconds(w, peaks.bytes, flops) * n for w, n in each)
            samples.put("kernel_roofline_seconds_total", floor, rank, basis)


def _waste(shape: MoeShape, dim: str) -> float:
    done, needed = (getattr(work(shape, 1.0, executed=each), dim) for each in (True, False))
    return float(max(0.0, 1 - needed / done))


def _dtype(facts: Facts) -> str | None:
    quants = {shape.text("quant") for shape in facts.parts("shapes")}
    return dtype_of(quants.pop()) if len(quants) == 1 else None


def add_proof(samples: Samples, record: Record, facts: Facts, *, active: bool) -> None:
    """What the worker says of itself."""
    rank, text = record.rank.name, facts.text
    samples.put(
        "build_info", 1, rank,
        *map(text, ("moe_serve", "vllm", "aiter", "torch")),
        text("device", "name") or text("device", "type"),
    )  # fmt: skip
    samples.put("padding_active", int(active), rank)
    samples.put("padding_max_neuron_loss_ratio", facts.number("max_neuron_loss"), rank)
    shapes = facts.parts("shapes")
    for shape in shapes:
        samples.put("config_info", 1, rank, *_call(facts, shape))
    if shapes:
        _add_losses(samples, rank, shapes)
        samples.put(
            "model_info", 1, rank, *(_number(shapes[0], name) for name in ("experts", "top_k"))
        )
    samples.put("moe_layers", facts.whole("layers", "moe"), rank)
    if "graphs" in facts.proof:
        samples.put("graph_sizes", len(facts.numbers("graphs", "sizes")), rank)
    _add_markers(samples, rank, facts, failed=record.telemetry_failed)


def _call(facts: Facts, shape: Facts) -> Iterator[str]:
    yield facts.text("policy")
    yield from (shape.text("path"), shape.text("quant"))
    yield from (_number(shape, "hidden"), _number(shape, "live_neurons"))
    for name in ("padded", "sent"):
        yield from (_number(shape, name, "hidden"), _number(shape, name, "intermediate"))
    yield facts.text("config_digest")


def _number(facts: Facts, *path: str) -> str:
    value = facts.whole(*path)
    return "" if value is None else str(value)


def _add_losses(samples: Samples, rank: str, shapes: list[Facts]) -> None:
    lost = [shape.whole("lost_neurons") for shape in shapes]
    ratios = [shape.number("loss_fraction") for shape in shapes]
    known = [ratio for ratio in ratios if ratio is not None]
    if known:
        samples.put("padding_neuron_loss_ratio", max(known), rank)
        samples.put("padding_lossy", int(max(known) > 0), rank)
    if None not in lost:
        samples.put("padding_lost_neurons", max(n for n in lost if n is not None), rank)
    samples.put("padding_live_neurons", shapes[0].whole("live_neurons"), rank)
    verified = [shape.flag("verified") for shape in shapes]
    if None not in verified:
        samples.put("padding_verified", int(all(verified)), rank)


def _add_markers(samples: Samples, rank: str, facts: Facts, *, failed: bool) -> None:
    for name in ("pair_seconds", "bias_seconds", "overhead_ratio", "budget_ratio"):
        samples.put(f"marker_{name}", facts.number("markers", name), rank)
    # The worker's last word on its totals is in the record's header: the proof may be older.
    state = "failed" if failed else facts.text("markers", "state")
    for each in STATES if state in STATES else ():
        samples.put("instrumentation_state", int(each == state), rank, each)
    sampled = facts.numbers("layers", "sampled")
    if state in STATES:
        samples.put("instrumented_layers", len(sampled), rank)
    samples.put("clock_hertz", facts.number("device", "clock_hertz"), rank)


def add_source(samples: Samples, record: Record, *, up: bool) -> None:
    """Whether there is a living worker behind the numbers, and since when."""
    rank = record.rank.name
    samples.put("source_up", int(up), rank)
    samples.put("source_last_step_timestamp_seconds", record.last_step_seconds, rank)
    samples.put("source_start_timestamp_seconds", record.started_seconds, rank)


def add_record(samples: Samples, record: Record) -> None:
    """Of the record itself."""
    rank = record.rank.name
    samples.put("graph_recaptures", record.recaptures, rank)
    samples.put("torn_slots", record.slots_torn, rank)


def series_bound(facts: Facts) -> int:
    """The most series that a rank with this configuration can have.

    Each of `layers` timed layers has two for a captured size and mode, and for an eager bucket and
    phase; each window and step likewise; a histogram for every mode and phase.
    """
    sizes, modes = len(facts.numbers("graphs", "sizes")), 2
    layers = max(1, len(facts.numbers("layers", "sampled")))
    eager = len(EAGER_BUCKETS) * 2
    slots = sizes * modes + eager
    kernels, windows, steps = 2 * layers * slots, 2 * slots, 2 * eager
    histograms = _HISTOGRAM_SERIES * (modes * 2 + 2)
    return kernels + windows + steps + histograms + layers + _SINGLE_SERIES
