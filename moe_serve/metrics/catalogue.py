"""Every metric of the product: name, type, labels and help, each written here alone.

A metric without data has no series: no value here is ever 0 or NaN for lack of data. `track`, `pod`
and `namespace` are labels of the scraped target; only `moe_serve_rollout_*`, which tells of all
tracks at once, has a `track` of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class MetricType(StrEnum):
    """Prometheus's types of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; `name` in full, as in a query."""

    name: str
    type: MetricType
    labels: tuple[str, ...]
    help: str


Catalogue = Mapping[str, Metric]
"""Metrics of one process, by their names without the prefix that they share."""


def _catalogue(prefix: str, *metrics: Metric) -> Catalogue:
    return {
        metric.name: Metric(
            name=prefix + metric.name, type=metric.type, labels=metric.labels, help=metric.help
        )
        for metric in metrics
    }


def _counter(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=MetricType.COUNTER, labels=tuple(labels.split()), help=text)


def _gauge(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=MetricType.GAUGE, labels=tuple(labels.split()), help=text)


def _histogram(name: str, labels: str, text: str) -> Metric:
    return Metric(name=name, type=MetricType.HISTOGRAM, labels=tuple(labels.split()), help=text)


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
    "reason": "why, in one word",
    "verdict": "`PROMOTE`, `ROLLBACK`, `KEEP_GOING` or `INVALID`",
    "rate": "`step`: of steps; `kernel`: of fused-MoE calls; `equal_weights`: of steps, all batch "
    "sizes weighted alike",
    "check": "the check's name, as in the verdict",
    "track": "`stable`, `baseline` or `canary`",
    "pod_label": "what the pods of a track have as value of the plan's label",
}

EXPORTER = _catalogue(
    "moe_serve_",
    # What is measured.
    _gauge("build_info", "rank version vllm aiter torch device", "Versions of what serves; 1."),
    _gauge(
        "config_info",
        "rank policy path quant hidden intermediate padded_hidden padded_intermediate hidden_pad "
        "intermediate_pad worker_config_digest",
        "The fused-MoE call as it is made, its pads as sent, and a digest of everything else that "
        "decides its speed; 1.",
    ),
    _gauge("model_info", "rank experts top_k", "The model as this rank has it; 1."),
    _gauge("moe_layers", "rank", "MoE layers of the served model on this rank."),
    _gauge("graph_sizes", "rank", "Batch sizes that graphs are captured for; 0: none are."),
    # Whether the padding is safe.
    _gauge(
        "padding_active",
        "rank",
        "1: the worker proved that calls go through the plugin and that their pads are safe or "
        "within the declared loss; 0: no such proof.",
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
    # How fast the experts are.
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
    # Whether the measurement can be trusted.
    _gauge("clock_hertz", "rank", "Ticks per second of the device's clock."),
    _gauge(
        "marker_pair_seconds",
        "rank",
        "Measured cost of a pair of markers in a graph of its own.",
    ),
    _gauge(
        "marker_bias_seconds",
        "rank",
        "Time that a pair of markers measures with nothing in between.",
    ),
    _gauge("marker_overhead_ratio", "rank", "Share of a median step that the markers cost."),
    _gauge(
        "marker_budget_ratio",
        "rank",
        "Share of a median step that the markers may cost before they are switched off.",
    ),
    _gauge("instrumentation_state", "rank state", "1 for the state that the markers are in."),
    _gauge("instrumented_layers", "rank", "Layers of the served model that are timed."),
    _counter(
        "invalid_samples_total",
        "rank reason",
        "Samples in no total: `clock_backwards`; `dropped`: no slot was left.",
    ),
    _gauge("torn_slots", "rank", "Slots without a whole value at this scrape; they are left out."),
    _gauge("graph_recaptures", "rank", "Times that graphs were captured anew since the start."),
    _gauge("source_up", "rank", "1: the record is readable and its worker lives; 0: not so."),
    _gauge("source_last_step_timestamp_seconds", "rank", "Unix time of the last served step."),
    _gauge(
        "source_start_timestamp_seconds",
        "rank",
        "Unix time at which the worker created its record.",
    ),
    _counter(
        "source_errors_total",
        "reason",
        "Records and proofs that could not be read, counted at each scrape.",
    ),
    # The exporter itself.
    _gauge("exporter_info", "version", "The exporter; 1."),
    _gauge("exporter_scrape_duration_seconds", "", "Time that collecting this scrape took."),
    _counter("exporter_scrapes_total", "", "Scrapes answered, this one included."),
    _counter(
        "exporter_scrape_errors_total",
        "",
        "Scrapes in which at least one record or proof could not be read.",
    ),
    _gauge("exporter_series", "", "Series of workers in this scrape."),
    _gauge(
        "exporter_series_bound",
        "",
        "Upper limit of these series, from the workers' layers and captured sizes.",
    ),
)

JUDGE = _catalogue(
    "moe_serve_canary_",
    _gauge("verdict", "verdict", "1 for the verdict in force, 0 for the others."),
    _gauge("last_evaluation_timestamp_seconds", "", "Unix time of the judge's last evaluation."),
    _gauge("source_up", "", "1: the source of metrics answered at the last evaluation; 0: not."),
    _gauge("audit_write_failed", "", "1: the last verdict is not in the audit log; 0: it is."),
    _gauge("log_ratio", "rate", "Natural logarithm of the canary's speed-up, estimated."),
    _gauge("log_ratio_lo", "rate", "Lower end of its interval."),
    _gauge("log_ratio_hi", "rate", "Upper end of its interval."),
    _gauge("covered_ratio", "rate", "Share of the busy time that the estimate covers."),
    _gauge("check_passed", "check", "1: the judge's check passed; 0: it did not."),
    _gauge("check_number", "check", "The number that the check compares."),
    _gauge("check_threshold", "check", "The threshold that it compares with."),
)

ROLLOUT = _catalogue(
    "moe_serve_rollout_",
    _gauge("active", "", "1: the controller changes the cluster; 0: shadow mode."),
    _gauge("track_info", "track pod_label", "The pods' label value of each track in the plan; 1."),
    _counter("reconciles_total", "", "Reconciles of the controller."),
    _counter("errors_total", "", "Reconciles that failed."),
    _gauge("last_reconcile_timestamp_seconds", "", "Unix time at which the last reconcile ended."),
    _gauge(
        "audit_write_failed",
        "",
        "1: the last line could not be written to the audit log, which lacks the verdicts of that "
        "time; 0: it could.",
    ),
    _gauge(
        "worker_failed",
        "",
        "1: a thread beside the loop (judge, watch, load, webhook) ended, and `/healthz` fails; "
        "0: all run.",
    ),
    _gauge(
        "audit_write_failed",
        "",
        "1: the last line could not be written to the audit log, which then lacks it; 0: it was.",
    ),
    _gauge("load_age_seconds", "", "Time since the load was measured last."),
    _gauge("leader", "", "1: this controller holds the lease; 0: it waits for it."),
    _gauge("load_age_seconds", "", "Seconds since the load was measured last."),
    _gauge(
        "hold_reason",
        "reason",
        "1 for the reason why the rollout does not advance; `fault` while reconciles fail.",
    ),
    _gauge("phase", "phase", "1 for the phase that the rollout is in."),
    _gauge("verdict", "verdict", "1 for the last verdict; `none` before the first."),
    _gauge("weight_ratio", "track", "Share of the requests that the plan gives to a track."),
    _gauge("weights_in_force", "", "1: the route has these weights; 0: not yet."),
    _gauge("step", "", "Step of the plan, from 1; 0 before the first."),
    _gauge("revision", "", "Rises with every change of the rollout's state."),
)
