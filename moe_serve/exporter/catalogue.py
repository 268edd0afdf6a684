"""Every metric of the exporter: the one place of names, types, labels and help.

What has no value has no series: nothing here is ever 0 or NaN for lack of data. `track`, `pod` and
`namespace` are labels of the scraped target, never of these series.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "moe_serve_"


class Type(StrEnum):
    """Prometheus's types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; `name` as in queries, without the prefix of all."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        """As in queries."""
        return PREFIX + self.name


def _all(*metrics: Metric) -> Mapping[str, Metric]:
    return {metric.name: metric for metric in metrics}


def _counter(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=Type.COUNTER, labels=tuple(labels.split()), help=text)


def _gauge(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=Type.GAUGE, labels=tuple(labels.split()), help=text)


def _histogram(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=Type.HISTOGRAM, labels=tuple(labels.split()), help=text)


LABELS = {
    "rank": "the worker: `dp0-pp0-tp0`",
    "layer": "the MoE layer's number in its model",
    "bucket": "rows of the batch: a captured graph's size; of eager calls exact up to 64, then the "
    "power of two above, `+Inf` above 8192",
    "mode": "`full` or `piecewise` graph, or `eager`",
    "phase": "`decode`: every request brings one token (or its draft); `mixed`: not so; `any`: a "
    "graph that serves both",
    "role": "`target`: the served model; `draft`: the one that drafts tokens for it",
    "basis": "`unpadded`: what the live sizes need; `executed`: what the kernel does with the pads "
    "that were sent",
    "dim": "`flops` or `bytes`",
    "kind": "`scheduled`: real tokens; `computed`: rows through the first timed layer, a graph's "
    "padding included",
    "dtype": "what the products are computed in",
    "source": "where the figure is from",
    "state": "`on`, `off`, `failed`, `over_budget` or `unsupported`",
    "reason": "one word",
}

METRICS = _all(
    # What is measured.
    _gauge("build_info", "rank version vllm aiter torch device", "Versions of what serves; 1."),
    _gauge(
        "config_info",
        "rank policy path quant hidden intermediate padded_hidden padded_intermediate hidden_pad "
        "intermediate_pad config_digest",
        "The fused-MoE call as it is made, its pads as sent, and a digest of everything else that "
        "decides its speed; 1.",
    ),
    _gauge("model_info", "rank experts top_k", "The model as this rank has it; 1."),
    _gauge("moe_layers", "rank", "MoE layers of the served model on this rank."),
    _gauge("graph_sizes", "rank", "Batch sizes that graphs are captured for; 0: none are."),
    # Is it right.
    _gauge(
        "padding_active",
        "rank",
        "1: the worker proved that calls go through the plugin and that their pads are safe or "
        "within the declared loss; 0: it did not.",
    ),
    _gauge(
        "padding_verified",
        "rank",
        "1: the pads were judged by the source of the very vLLM and AITER that serve; 0: that "
        "source was not read (a newer, development or untagged build, or the site's own tables).",
    ),
    _gauge("padding_lossy", "rank", "1: the pads that were sent lose live neurons; 0: none."),
    _gauge("padding_lost_neurons", "rank", "Live neurons that the sent pads lose, of this rank."),
    _gauge("padding_live_neurons", "rank", "Live neurons of an expert, of this rank."),
    _gauge("padding_neuron_loss_ratio", "rank", "Largest share of live weights that is lost."),
    _gauge("padding_max_neuron_loss_ratio", "rank", "The loss that the operator declared."),
    _gauge(
        "padding_waste_ratio",
        "rank dim",
        "1 - unpadded over executed work of a fused-MoE call, by the sizes alone.",
    ),
    # How fast is it.
    _counter(
        "kernel_seconds_total",
        "rank layer bucket mode phase role",
        "Seconds of fused-MoE calls of the timed layers, by the device's clock.",
    ),
    _counter(
        "kernel_invocations_total",
        "rank layer bucket mode phase role",
        "Fused-MoE calls of the timed layers.",
    ),
    _histogram(
        "kernel_duration_seconds",
        "rank mode phase",
        "Fused-MoE calls of all timed layers of the served model.",
    ),
    _gauge("kernel_max_seconds", "rank layer", "Longest fused-MoE call since the start."),
    _counter("kernel_tokens_total", "rank mode phase", "Rows through the timed fused-MoE calls."),
    _counter(
        "kernel_flops_total",
        "rank basis",
        "Floating-point operations of the timed calls, modelled: 6 x rows x top_k x hidden x "
        "intermediate.",
    ),
    _counter(
        "kernel_bytes_total",
        "rank basis",
        "Memory traffic of the timed calls, modelled: 4.25 bits a weight of the experts that so "
        "many rows are expected to reach, and activations.",
    ),
    _counter(
        "kernel_roofline_seconds_total",
        "rank basis",
        "The time that the timed calls would take at the device's peaks.",
    ),
    _counter(
        "forward_window_seconds_total",
        "rank bucket mode phase",
        "Seconds from the first timed layer's start to the last one's stop in a forward pass, "
        "without head, sampling and drafter.",
    ),
    _counter("forward_windows_total", "rank bucket mode phase", "Forward passes timed so."),
    _counter(
        "step_seconds_total",
        "rank bucket phase",
        "Wall-clock seconds of whole steps, where a step returns when its work is done (on a CPU).",
    ),
    _counter("steps_timed_total", "rank bucket phase", "Steps timed so."),
    _counter("steps_total", "rank phase", "Served steps."),
    _counter("tokens_total", "rank phase kind", "Tokens of served steps."),
    _gauge("peak_flops", "rank dtype source", "The device's peak, dense, per second."),
    _gauge(
        "peak_memory_bandwidth_bytes_per_second", "rank source", "The device's peak memory traffic."
    ),
    # Can it be trusted.
    _gauge("clock_hertz", "rank", "Ticks per second of the device's clock."),
    _gauge(
        "marker_pair_seconds", "rank", "Calibrated cost of a pair of markers in a graph of its own."
    ),
    _gauge("marker_bias_seconds", "rank", "What a pair measures with nothing in between."),
    _gauge("marker_overhead_ratio", "rank", "Share of a median step that the markers cost."),
    _gauge("marker_budget_ratio", "rank", "Share that they may cost before they are switched off."),
    _gauge("instrumentation_state", "rank state", "1 for the state that the markers are in."),
    _gauge("instrumented_layers", "rank", "Layers of the served model that are timed."),
    _counter(
        "invalid_samples_total",
        "rank reason",
        "Samples in no total: `clock_backwards`; `dropped`: no slot was left.",
    ),
    _gauge("torn_slots", "rank", "Slots without a whole value at this scrape; they are left out."),
    _gauge("graph_recaptures", "rank", "How often graphs were captured anew since the start."),
    _gauge("source_up", "rank", "1: the record is readable and its worker lives; 0: not so."),
    _gauge("source_last_step_timestamp_seconds", "rank", "When the last step was served."),
    _gauge("source_start_timestamp_seconds", "rank", "When the worker's record began."),
    _counter("source_errors_total", "reason", "Records that could not be read, a scrape each."),
    # The exporter itself.
    _gauge("exporter_info", "version", "The exporter; 1."),
    _gauge("exporter_scrape_duration_seconds", "", "What collecting this scrape took."),
    _counter("exporter_scrapes_total", "", "Scrapes, this one included."),
    _counter("exporter_scrape_errors_total", "", "Scrapes of which a source was left out."),
    _gauge("exporter_series", "", "Series of workers in this scrape."),
    _gauge("exporter_series_bound", "", "What they cannot exceed, by the workers' configuration."),
)
