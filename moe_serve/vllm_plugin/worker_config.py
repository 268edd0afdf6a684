"""What vLLM's configuration says of one worker: its rank, its graphs, what decides its speed."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from moe_serve.telemetry.proof import GraphsProof
from moe_serve.telemetry.slots import Rank

# Values that name a place or a moment, not a way of working; and nothing secret may be hashed.
_DECIDES = re.compile(r"^(AITER|HIP|HSA|VLLM_(ROCM|USE|ALL2ALL|FUSED_MOE|MOE|MXFP4|CPU|V1))_")
_FIELDS = {
    "model_config": (
        "model", "revision", "dtype", "max_model_len", "quantization", "enforce_eager",
    ),
    "cache_config": (
        "block_size", "cache_dtype", "enable_prefix_caching", "gpu_memory_utilization",
    ),
    "parallel_config": (
        "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
        "enable_expert_parallel", "enable_dbo", "enable_eplb", "all2all_backend",
    ),
    "scheduler_config": (
        "max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "async_scheduling",
        "policy",
    ),
    "compilation_config": ("mode", "cudagraph_mode", "cudagraph_capture_sizes"),
    "speculative_config": ("method", "num_speculative_tokens", "model"),
    "attention_config": ("backend",),
    "kernel_config": ("moe_backend",),
}  # fmt: skip


def worker_config_digest(
    vllm_config: Any, versions: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> str:
    """16 hex digits, equal where configuration and software are; pads and policy are not in it."""
    seen = {
        part: {name: str(getattr(getattr(vllm_config, part, None), name, None)) for name in names}
        for part, names in _FIELDS.items()
    }
    switches = {name: value for name, value in environment.items() if _DECIDES.match(name)}
    text = json.dumps([seen, switches, dict(versions)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def captured_graphs(vllm_config: Any) -> GraphsProof:
    """Sizes and modes of the graphs that vLLM captures; none of either when it captures none."""
    compilation = vllm_config.compilation_config
    mode = getattr(compilation, "cudagraph_mode", None)
    sizes = getattr(compilation, "cudagraph_capture_sizes", None) or []
    used = (mode.decode_mode(), mode.mixed_mode()) if mode else ()
    modes = {part.name.lower() for part in used} & {"full", "piecewise"}
    return GraphsProof(
        sizes=tuple(sorted(map(int, sizes))) if modes else (), modes=tuple(sorted(modes))
    )


def separates_decode_graphs(vllm_config: Any) -> bool:
    """Whether full graphs serve decode steps alone."""
    mode = getattr(vllm_config.compilation_config, "cudagraph_mode", None)
    return mode is not None and bool(mode.separate_routine())


def decode_width(vllm_config: Any) -> int:
    """Tokens that a request in decode brings to a step: more than one with a drafter."""
    speculative = getattr(vllm_config, "speculative_config", None)
    return 1 + int(getattr(speculative, "num_speculative_tokens", 0) or 0)


def rank_of(worker: Any) -> Rank:
    """The worker's rank, from its `parallel_config` and its number among all."""
    parallel = worker.parallel_config
    # Prefill context parallelism lies between pipeline and tensor; its ranks count as more tensor
    # ranks.
    pcp = int(getattr(parallel, "prefill_context_parallel_size", 1) or 1)
    inner, pp = int(parallel.tensor_parallel_size) * pcp, int(parallel.pipeline_parallel_size)
    return Rank(
        dp=int(getattr(parallel, "data_parallel_rank", 0) or 0),
        pp=int(worker.rank) // inner % pp,
        tp=int(worker.rank) % inner,
    )
