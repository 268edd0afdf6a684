"""A doctored vLLM in `sys.modules`: just what the plugin looks for, as each test wants it."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from moe_serve.vllm_plugin import aligned_padding, shape, worker

Received = list[dict[str, Any]]


class Tensor(SimpleNamespace):
    """As much of a tensor as the plugin looks at."""

    def __init__(self, *size: int, at: int = 0) -> None:
        super().__init__(shape=size, dtype="bfloat16", device=SimpleNamespace(type="cpu"))
        self._at = at

    def data_ptr(self) -> int:
        """Its address."""
        return self._at


def install(
    monkeypatch: pytest.MonkeyPatch, received: Received, *, version: str = "0.32.0"
) -> tuple[ModuleType, ModuleType]:
    """Put vLLM's modules there as 0.32 has them; returns the experts' and the worker's module."""
    vllm = ModuleType("vllm")
    vllm.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    experts = ModuleType(aligned_padding.MODULE)
    experts.rocm_aiter_ops = type("rocm_aiter_ops", (), {"fused_moe": _fused_moe(received)})  # type: ignore[attr-defined]
    experts.rocm_aiter_fused_experts = _experts(experts)  # type: ignore[attr-defined]
    workers = ModuleType(worker.MODULE)
    workers.Worker = type("Worker", (), {"load_model": _load, "execute_model": _execute})  # type: ignore[attr-defined]
    for module in (experts, workers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    shape.installed_vllm.cache_clear()
    shape.installed_aiter.cache_clear()
    return experts, workers


def _fused_moe(received: Received) -> "staticmethod[..., str]":
    def fused_moe(
        hidden_states: Any,
        w1: Any,
        w2: Any = None,
        hidden_pad: int = 0,
        intermediate_pad: int = 0,
        gate_mode: str = "",
        bias1: Any = None,
    ) -> str:
        received.append({"hidden_pad": hidden_pad, "intermediate_pad": intermediate_pad})
        return "result"

    return staticmethod(fused_moe)


def _experts(module: ModuleType) -> Callable[..., Any]:
    def rocm_aiter_fused_experts(
        hidden_states: Any,
        w1: Any,
        moe_config: Any,
        activation: Any = None,
        quant_config: Any = None,
    ) -> Any:
        return module.rocm_aiter_ops.fused_moe(
            hidden_states, w1, hidden_pad=128, intermediate_pad=384, gate_mode="interleave", bias1=1
        )

    return rocm_aiter_fused_experts


def _load(self: Any) -> str:
    return "loaded"


def _execute(self: Any, scheduler_output: Any) -> Any:
    return self.run()


def moe_config(**changes: Any) -> SimpleNamespace:
    """One rank of GPT-OSS at TP=1."""
    return SimpleNamespace(
        **{
            "hidden_dim_unpadded": 2880,
            "intermediate_size_per_partition": 3072,
            "intermediate_size_per_partition_unpadded": 2880,
            "tp_size": 1,
            "num_local_experts": 128,
            "experts_per_token": 4,
            **changes,
        }
    )


W4A16 = SimpleNamespace(use_mxfp4_w4a16=True, use_mxfp4_w4a4=False)
BF16 = SimpleNamespace(use_mxfp4_w4a16=False, use_mxfp4_w4a4=False)
SWIGLU = SimpleNamespace(value="swigluoai")
SITU = SimpleNamespace(value="situ")
