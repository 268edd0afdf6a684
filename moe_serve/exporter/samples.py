"""One rank's record as samples of the catalogue. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from moe_serve.exporter.roofline import (
    dtype_of,
    floor_seconds,
    modelled_shape,
    peaks_of,
    work,
)
from moe_serve.metrics.samples import Distribution, Samples
from moe_serve.telemetry.proof import InstrumentationState, Proof, ShapeProof
from moe_serve.telemetry.record import Record
from moe_serve.telemetry.slots import (
    EAGER_BUCKETS,
    HISTOGRAM_SECONDS,
    OVERFLOW,
    BatchPhase,
    GraphMode,
    ModelRole,
    SlotKey,
    SlotKind,
    Totals,
)

_BOUNDS = (*(f"{bound:.9g}" for bound in HISTOGRAM_SECONDS), "+Inf")
_HISTOGRAM_SERIES = len(_BOUNDS) + 2
_BASES = (("unpadded", False), ("executed", True))
_SINGLE_SERIES = 64  # of a rank: everything that is not a slot's


def add_totals(samples: Samples, record: Record) -> None:
    """The totals of every slot that was hit."""
    rank = record.rank.name
    groups: dict[tuple[GraphMode, BatchPhase, int], list[Totals]] = defaultdict(list)
    for key, totals in record.totals.items():
        _ADDERS[key.kind](samples, rank, key, totals)
        if key.kind is SlotKind.KERNEL and key.model is ModelRole.TARGET and key.layer is not None:
            groups[key.mode, key.phase, key.layer].append(totals)
    invalid = sum(totals.invalid for totals in record.totals.values())
    samples.put("invalid_samples_total", invalid, rank, "clock_backwards")
    samples.put("invalid_samples_total", record.slots_dropped, rank, "dropped")
    _add_calls(samples, rank, groups)


def _add_calls(
    samples: Samples, rank: str, groups: Mapping[tuple[GraphMode, BatchPhase, int], list[Totals]]
) -> None:
    """Totals of the served model's timed calls over all batch sizes."""
    first = min((layer for _, _, layer in groups), default=None)
    modes: dict[tuple[GraphMode, BatchPhase], list[Totals]] = defaultdict(list)
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
            bounds=_BOUNDS,
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


_ADDERS: Mapping[SlotKind, Callable[[Samples, str, SlotKey, Totals], None]] = {
    SlotKind.KERNEL: _kernel,
    SlotKind.WINDOW: _window,
    SlotKind.STEP: _step,
    SlotKind.SCHEDULE: _schedule,
}


def _bucket(key: SlotKey) -> str:
    return "+Inf" if key.bucket == OVERFLOW else str(key.bucket)


def add_roofline(samples: Samples, record: Record, proof: Proof) -> None:
    """Modelled work of the timed calls, where the shape is known, and the device's peaks."""
    rank, shape = record.rank.name, modelled_shape(proof.shapes)
    if shape is None:
        return
    for dim in ("flops", "bytes"):
        samples.put("padding_waste_ratio", _waste(shape, dim), rank, dim)
    peaks = peaks_of(proof.device.name or "") if proof.device else None
    dtype = dtype_of(shape.quant)
    flops = peaks.flops(dtype) if peaks and dtype else None
    if peaks and dtype and flops:
        samples.put("peak_flops", flops, rank, dtype, peaks.source)
        samples.put("peak_memory_bandwidth_bytes_per_second", peaks.bytes, rank, peaks.source)
    calls: dict[float, int] = defaultdict(int)
    for key, totals in record.totals.items():
        if key.kind is SlotKind.KERNEL and key.model is ModelRole.TARGET and totals.count:
            calls[totals.tokens / totals.count] += totals.count
    for basis, executed in _BASES:
        each = [(work(shape, rows, executed=executed), count) for rows, count in calls.items()]
        samples.put("kernel_flops_total", sum(w.flops * n for w, n in each), rank, basis)
        samples.put("kernel_bytes_total", sum(w.bytes * n for w, n in each), rank, basis)
        if peaks and flops:
            floor = sum(floor_seconds(w, peaks.bytes, flops) * n for w, n in each)
            samples.put("kernel_roofline_seconds_total", floor, rank, basis)


def _waste(shape: ShapeProof, dim: str) -> float:
    done, needed = (getattr(work(shape, 1.0, executed=each), dim) for each in (True, False))
    return float(max(0.0, 1 - needed / done))


def add_proof(samples: Samples, record: Record, proof: Proof) -> None:
    """What the worker proves: software, pads and what they lose, layers, graphs, markers."""
    rank, device = record.rank.name, proof.device
    versions = (proof.moe_serve, proof.vllm, proof.aiter, proof.torch)
    device_name = (device.name or device.type) if device else ""
    samples.put("build_info", 1, rank, *(each or "" for each in versions), device_name)
    samples.put("padding_max_neuron_loss_ratio", proof.max_neuron_loss, rank)
    for shape in proof.shapes:
        samples.put("config_info", 1, rank, *_call(proof, shape))
    if proof.shapes:
        _add_losses(samples, rank, proof.shapes)
        first = proof.shapes[0]
        samples.put("model_info", 1, rank, str(first.experts), str(first.top_k))
    samples.put("moe_layers", proof.layers.moe, rank)
    if proof.graphs:
        samples.put("graph_sizes", len(proof.graphs.sizes), rank)
    if device:
        samples.put("clock_hertz", device.clock_hertz, rank)
    _add_markers(samples, rank, proof, failed=record.telemetry_failed)


def _call(proof: Proof, shape: ShapeProof) -> Iterator[str]:
    yield from (proof.policy, shape.path, shape.quant)
    yield from (str(shape.hidden), str(shape.live_neurons))
    for size in (shape.padded, shape.sent):
        yield from (str(size.hidden), str(size.intermediate))
    yield proof.worker_config_digest or ""


def _add_losses(samples: Samples, rank: str, shapes: Sequence[ShapeProof]) -> None:
    largest = max(shape.loss_fraction for shape in shapes)
    samples.put("padding_neuron_loss_ratio", largest, rank)
    samples.put("padding_lossy", int(largest > 0), rank)
    samples.put("padding_lost_neurons", max(shape.lost_neurons for shape in shapes), rank)
    samples.put("padding_live_neurons", shapes[0].live_neurons, rank)
    samples.put("padding_verified", int(all(shape.verified for shape in shapes)), rank)


def _add_markers(samples: Samples, rank: str, proof: Proof, *, failed: bool) -> None:
    markers = proof.markers
    samples.put("marker_pair_seconds", markers.pair_seconds, rank)
    samples.put("marker_bias_seconds", markers.bias_seconds, rank)
    samples.put("marker_overhead_ratio", markers.overhead_ratio, rank)
    samples.put("marker_budget_ratio", markers.budget_ratio, rank)
    # The header's flag is newer than the proof: the worker sets it when its totals fail.
    state = InstrumentationState.FAILED if failed else markers.state
    for each in InstrumentationState:
        samples.put("instrumentation_state", int(each is state), rank, each)
    samples.put("instrumented_layers", len(proof.layers.sampled), rank)


def add_source(samples: Samples, record: Record, *, up: bool) -> None:
    """Whether the record's worker lives, its start and its last step."""
    rank = record.rank.name
    samples.put("source_up", int(up), rank)
    samples.put("source_last_step_timestamp_seconds", record.last_step_seconds, rank)
    samples.put("source_start_timestamp_seconds", record.started_seconds, rank)


def add_record(samples: Samples, record: Record) -> None:
    """Re-captured graphs, and slots that are left out of this scrape."""
    rank = record.rank.name
    samples.put("graph_recaptures", record.recaptures, rank)
    samples.put("torn_slots", record.slots_torn, rank)


def series_bound(*, layers: int, sizes: int) -> int:
    """The most series that a rank can have with `layers` timed layers and `sizes` captured sizes.

    A layer has two series per captured size and mode, and per eager bucket and phase; windows and
    steps likewise; there is one histogram per mode and phase.
    """
    modes, layers = 2, max(1, layers)
    eager = len(EAGER_BUCKETS) * 2
    slots = sizes * modes + eager
    kernels, windows, steps = 2 * layers * slots, 2 * slots, 2 * eager
    histograms = _HISTOGRAM_SERIES * (modes * 2 + 2)
    return kernels + windows + steps + histograms + layers + _SINGLE_SERIES


def bound_of(proof: Proof | None) -> int:
    """The most series of the rank with this proof."""
    if proof is None:
        return series_bound(layers=0, sizes=0)
    sizes = len(proof.graphs.sizes) if proof.graphs else 0
    return series_bound(layers=len(proof.layers.sampled), sizes=sizes)
