"""Names of the metrics that the judge reads: the exporter's, from the catalogue, and vLLM's."""

from moe_serve.metrics.catalogue import EXPORTER


def _names(*keys: str) -> tuple[str, ...]:
    return tuple(EXPORTER[key].name for key in keys)


# Pairs of a count and its busy seconds.
STEP = _names("steps_timed_total", "step_seconds_total")
WINDOW = _names("forward_windows_total", "forward_window_seconds_total")
KERNEL = _names("kernel_invocations_total", "kernel_seconds_total")
# A change of either begins a new generation of a worker's counters.
GENERATION = _names("source_start_timestamp_seconds", "graph_recaptures")
PROCESS_START = GENERATION[0]
INFOS = _names("config_info", "build_info")
# Lost and live neurons.
NEURONS = _names("padding_lost_neurons", "padding_live_neurons")
(MOE_LAYERS,) = _names("moe_layers")
(KERNEL_BYTES,) = _names("kernel_bytes_total")

REQUESTS = "vllm:request_success_total"
PREEMPTIONS = "vllm:num_preemptions_total"
TTFT_BUCKETS = "vllm:time_to_first_token_seconds_bucket"
ITL_BUCKETS = "vllm:inter_token_latency_seconds_bucket"

# A source reads these and nothing else.
NAMES = (
    *STEP, *WINDOW, *KERNEL, *GENERATION, *INFOS, *NEURONS, MOE_LAYERS, KERNEL_BYTES, REQUESTS,
    PREEMPTIONS, TTFT_BUCKETS, ITL_BUCKETS,
)  # fmt: skip
