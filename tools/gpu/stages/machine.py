"""What the machine is, what its memory can do, and whether vLLM's own compiled code runs."""

import importlib.metadata
import json
import subprocess
import sys
from typing import Any

from tools.gpu import place

_VERSIONS = ("torch", "triton", "transformers", "numpy", "vllm", "moe-serve", "amd-aiter")
_COPY_BYTES, _COPIES = 8 << 30, 10


def machine() -> dict[str, Any]:
    """Device, versions, bandwidth of a copy in bytes/s, and two of vLLM's own ops."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "device": torch.cuda.get_device_name(0),
        "tested": "H200" in torch.cuda.get_device_name(0),
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": properties.total_memory,
        "versions": versions(),
        "copy_bytes_per_second": bandwidth(),
        "vllm_ops": _ops(),
    }


def versions() -> dict[str, str | None]:
    """Of what decides speed and answers; None: not installed."""
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def bandwidth() -> float:
    """Bytes read and written per second by a large copy on the device."""
    import torch

    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    begun.record()
    for _ in range(_COPIES):
        target.copy_(source)
    ended.record()
    ended.synchronize()
    return 2 * _COPY_BYTES * _COPIES / (begun.elapsed_time(ended) / 1e3)


def _ops() -> dict[str, float]:
    """Error of vLLM's RMSNorm against PyTorch's, and the blocks that its sort fills."""
    import torch
    import vllm._custom_ops as ops
    from vllm.model_executor.layers.fused_moe.moe_align_block_size import moe_align_block_size

    x = torch.randn(8, 2880, device="cuda", dtype=torch.bfloat16)
    weight = torch.ones(2880, device="cuda", dtype=torch.bfloat16)
    out = torch.empty_like(x)
    ops.rms_norm(out, x, weight, 1e-5)
    wanted = torch.nn.functional.rms_norm(x.float(), (2880,), weight.float(), 1e-5)
    ids = torch.randint(0, 32, (8, 4), device="cuda", dtype=torch.int32)
    _, _, padded = moe_align_block_size(ids, 16, 32)
    error = float((out.float() - wanted).abs().max())
    if error > 0.05 or int(padded) != 16 * ids.unique().numel():
        raise RuntimeError(f"vLLM's compiled ops: RMSNorm is off by {error}, {int(padded)} rows")
    return {"rms_norm_error": error, "sorted_rows": int(padded)}


def selftest() -> dict[str, Any]:
    """The markers' own checks on this device, as an operator runs them."""
    done = subprocess.run(
        [sys.executable, "-m", "moe_serve.vllm_plugin.markers.selftest"],
        env=place.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"selftest ended with {done.returncode}: {done.stdout[-1500:]}")
    return {"ways": documents(done.stdout)}


def documents(text: str) -> list[dict[str, Any]]:
    """The JSON objects that follow each other in a text."""
    found, decoder = [], json.JSONDecoder()
    while text := text.strip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found
