"""For every alert: series with which it fires, and like ones with which it does not."""

from dataclasses import dataclass, field

from tests.monitoring.rules import Series

_POD = 'namespace="llm", pod="a", instance="a:9400", model="gpt", track="stable"'
_RANK = f'{_POD}, rank="dp0-pp0-tp0"'
_UP = f"moe_serve_source_up{{{_RANK}}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`labels`: the alert's own, beside those of its rule."""

    fires: Series
    silent: Series
    labels: dict[str, str] = field(default_factory=dict)
    minutes: int = 60


def _gauge(name: str, value: float, labels: str = _RANK) -> Series:
    return {f"{name}{{{labels}}}": f"{value}x200"}


def _counter(name: str, step: float, labels: str) -> Series:
    return {f"{name}{{{labels}}}": f"0+{step}x200"}


def kernels(track: str, bucket: str, *, calls: float, mean: float, mode: str = "full") -> Series:
    """`calls` in 30 s of `mean` seconds each, of one track at one size."""
    labels = (
        f'namespace="llm", pod="{track}-0", instance="{track}:9400", model="gpt", '
        f'track="{track}", rank="dp0-pp0-tp0", layer="0", bucket="{bucket}", mode="{mode}", '
        'phase="decode", role="target"'
    )
    return {
        **_counter("moe_serve_kernel_invocations_total", calls, labels),
        **_counter("moe_serve_kernel_seconds_total", calls * mean, labels),
    }


def config(
    track: str, *, policy: str = "zero", path: str = "cktile", digest: str = "d", pod: int = 0
) -> Series:
    """What a track's worker says it runs."""
    labels = (
        f'namespace="llm", pod="{track}-{pod}", model="gpt", track="{track}", policy="{policy}", '
        f'path="{path}", quant="w4a16", worker_config_digest="{digest}"'
    )
    return {f"moe_serve_config_info{{{labels}}}": "1x200"}


def _histogram(name: str, buckets: dict[str, int]) -> Series:
    """Observations in 30 s, cumulative by upper bound in seconds."""
    return {
        f'{name}_bucket{{{_POD}, le="{bound}"}}': f"0+{count}x200"
        for bound, count in buckets.items()
    }


def _finished(reason: str, requests: int) -> Series:
    return _counter("vllm:request_success_total", requests, f'{_POD}, finished_reason="{reason}"')


def _ready(pod: str, value: int) -> Series:
    """As kube-state-metrics says it."""
    return _gauge("kube_pod_status_ready", value, f'namespace="llm", pod="{pod}", condition="true"')


def _waiting(pod: str, requests: int) -> Series:
    labels = f'namespace="llm", pod="{pod}", model="gpt", track="stable"'
    return _gauge("vllm:num_requests_waiting", requests, labels)


def _both(canary_mean: float) -> Series:
    return {
        **kernels("stable", "64", calls=100, mean=1e-3),
        **kernels("canary", "64", calls=10, mean=canary_mean),
    }


def _bandwidth(share_of_peak: float) -> Series:
    seconds = kernels("stable", "64", calls=100, mean=1e-3)  # 0.1 s in 30 s
    stable = 'namespace="llm", pod="stable-0", instance="stable:9400", model="gpt", track="stable"'
    rank = f'{stable}, rank="dp0-pp0-tp0"'
    return {
        **seconds,
        **_counter(
            "moe_serve_kernel_bytes_total", 0.1 * 8e12 * share_of_peak, f'{rank}, basis="executed"'
        ),
        f'moe_serve_peak_memory_bandwidth_bytes_per_second{{{rank}, source="sheet"}}': "8e12x200",
    }


def _state(name: str) -> Series:
    return _gauge("moe_serve_instrumentation_state", 1, f'{_RANK}, state="{name}"')


def _eager(calls: float) -> Series:
    return {
        **kernels("stable", "64", calls=100, mean=1e-3),
        **kernels("stable", "3", calls=calls, mean=1e-3, mode="eager"),
        **_gauge("moe_serve_graph_sizes", 83),
    }


_OF_RANK = dict(
    part.strip().replace('"', "").split("=") for part in _RANK.split(",")
)  # every label of a rank's series
_OF_POD = {key: value for key, value in _OF_RANK.items() if key != "rank"}
_COMPARED = {"namespace": "llm", "model": "gpt", "over": "stable"}
_STABLE = {"namespace": "llm", "model": "gpt"}
_OF_TRACK = {**_STABLE, "track": "stable"}

_OF_CONTROLLER = {"namespace": "llm", "job": "verdict", "pod": "a"}
_CONTROLLER = ", ".join(f'{key}="{text}"' for key, text in _OF_CONTROLLER.items())


def _leader(pod: str, is_leader: int) -> Series:
    labels = f'namespace="llm", job="verdict", pod="{pod}"'
    return _gauge("moe_serve_rollout_leader", is_leader, labels)


CASES = {
    "MoeServePaddingNotActive": Case(
        fires={**_gauge("moe_serve_padding_active", 0), _UP: "1x200"},
        silent={**_gauge("moe_serve_padding_active", 0), _UP: "0x200"},
        labels=_OF_RANK,
    ),
    "MoeServePaddingUnsafe": Case(
        fires={
            **_gauge("moe_serve_padding_neuron_loss_ratio", 0.29),
            **_gauge("moe_serve_padding_max_neuron_loss_ratio", 0.1),
        },
        silent={
            **_gauge("moe_serve_padding_neuron_loss_ratio", 0.02),
            **_gauge("moe_serve_padding_max_neuron_loss_ratio", 0.02),
        },
        labels=_OF_RANK,
    ),
    "MoeServeKernelRegression": Case(fires=_both(1.1e-3), silent=_both(1.01e-3), labels=_COMPARED),
    "MoeServeSpeedupLost": Case(
        fires={**_both(0.99e-3), **config("stable"), **config("canary", policy="aligned")},
        silent={**_both(0.99e-3), **config("stable"), **config("canary")},
        labels=_COMPARED,
    ),
    "MoeServeTracksDiffer": Case(
        fires={**config("stable"), **config("canary", path="triton")},
        # A canary's versions and pads are under test, and so is the digest that follows them.
        silent={**config("stable"), **config("canary", policy="aligned", digest="e")},
        labels=_STABLE,
    ),
    "MoeServeRequestsQueue": Case(
        fires={**_waiting("a", 40), **_waiting("b", 0)},
        silent={**_waiting("a", 30), **_waiting("b", 0)},
        labels=_OF_TRACK,
    ),
    "MoeServeFirstTokenSlow": Case(
        fires=_histogram("vllm:time_to_first_token_seconds", {"10": 98, "20": 100, "+Inf": 100}),
        silent=_histogram("vllm:time_to_first_token_seconds", {"10": 100, "20": 100, "+Inf": 100}),
        labels=_OF_TRACK,
    ),
    "MoeServeTokensSlow": Case(
        fires=_histogram("vllm:inter_token_latency_seconds", {"0.2": 98, "0.4": 100, "+Inf": 100}),
        silent=_histogram("vllm:inter_token_latency_seconds", {"0.2": 100, "+Inf": 100}),
        labels=_OF_TRACK,
    ),
    "MoeServeKvCacheFull": Case(
        fires=_gauge("vllm:kv_cache_usage_perc", 0.97),
        silent=_gauge("vllm:kv_cache_usage_perc", 0.94),
        labels={**_OF_TRACK, "pod": "a"},
    ),
    "MoeServeRequestErrors": Case(
        fires={**_finished("stop", 98), **_finished("error", 2)},
        silent={**_finished("stop", 199), **_finished("error", 1)},
        labels=_OF_TRACK,
    ),
    "MoeServePodNotReady": Case(
        # The scrape knows the pod; another's readiness is not this rule's.
        fires={**_ready("a", 0), **_gauge("up", 0, _POD)},
        silent={**_ready("b", 0), **_ready("a", 1), **_gauge("up", 1, _POD)},
        labels={"namespace": "llm", "pod": "a"},
        minutes=80,
    ),
    "MoeServeImpossibleBandwidth": Case(
        fires=_bandwidth(1.4),
        silent=_bandwidth(0.8),
        labels={**_OF_RANK, "pod": "stable-0", "instance": "stable:9400"},
    ),
    "MoeServeMarkersOff": Case(
        fires=_state("failed"), silent=_state("on"), labels={**_OF_RANK, "state": "failed"}
    ),
    "MoeServeMarkersOverBudget": Case(
        fires=_state("over_budget"),
        silent=_state("on"),
        labels={**_OF_RANK, "state": "over_budget"},
    ),
    "MoeServeSourceStale": Case(
        fires=_gauge("moe_serve_exporter_info", 1, f'{_POD}, version="1"'),
        silent={**_gauge("moe_serve_exporter_info", 1, f'{_POD}, version="1"'), _UP: "1x200"},
        labels={**_OF_POD, "version": "1"},
    ),
    "MoeServeEagerFallback": Case(
        fires=_eager(20), silent=_eager(2), labels={**_STABLE, "track": "stable"}
    ),
    "MoeServeGpuThrottled": Case(
        fires={
            **_gauge("amd_gpu_violation_ppt_residency_percentage", 30, 'namespace="llm", pod="a"'),
            _UP: "1x200",
        },
        silent={
            **_gauge("amd_gpu_violation_ppt_residency_percentage", 30, 'namespace="x", pod="b"'),
            _UP: "1x200",
        },
        labels={"namespace": "llm", "pod": "a"},
    ),
    "MoeServeExporterErrors": Case(
        fires=_counter("moe_serve_source_errors_total", 1, f'{_POD}, reason="proof"'),
        silent=_counter("moe_serve_source_errors_total", 0, f'{_POD}, reason="proof"'),
        labels={**_OF_POD, "reason": "proof"},
    ),
    "MoeServeInvalidSamples": Case(
        fires=_counter("moe_serve_invalid_samples_total", 1, f'{_RANK}, reason="dropped"'),
        silent=_counter("moe_serve_invalid_samples_total", 0, f'{_RANK}, reason="dropped"'),
        labels={**_OF_RANK, "reason": "dropped"},
    ),
    "MoeServeRolloutHeld": Case(
        fires=_gauge("moe_serve_rollout_hold_reason", 1, f'{_CONTROLLER}, reason="fault"'),
        silent=_gauge("moe_serve_rollout_hold_reason", 0, f'{_CONTROLLER}, reason="fault"'),
        labels={**_OF_CONTROLLER, "reason": "fault"},
    ),
    "MoeServeRolloutWithoutLeader": Case(
        fires={**_leader("a", 0), **_leader("b", 0)},
        silent={**_leader("a", 0), **_leader("b", 1)},
        labels={key: _OF_CONTROLLER[key] for key in ("namespace", "job")},
    ),
}
