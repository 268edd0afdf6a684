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

    def __init__(self, *size: int) -> None:
        super().__init__(shape=size, dtype="bfloat16", device=SimpleNamespace(type="cpu"))


class MoeRunner:
    """What vLLM runs a MoE layer through."""

    def __init__(self, run: Callable[[], Any] = str) -> None:
        self.run = run

    def _forward_impl(self) -> Any:
        return self.run()

    def forward(self) -> Any:
        """As vLLM's custom op does."""
        return self._forward_impl()


class GraphMode(SimpleNamespace):
    """One of vLLM's `CUDAGraphMode`s."""

    def __init__(self, decode: str, mixed: str) -> None:
        super().__init__(decode=SimpleNamespace(name=decode), mixed=SimpleNamespace(name=mixed))

    def decode_mode(self) -> Any:
        return self.decode

    def mixed_mode(self) -> Any:
        return self.mixed

    def separate_routine(self) -> bool:
        return bool(self.decode.name != self.mixed.name)


def make_worker(
    workers: ModuleType, *, rank: int = 0, layers: dict[str, MoeRunner] | None = None
) -> Any:
    """An eager CPU worker of 0.32; its model holds every layer whose name begins with `model`."""
    made = workers.Worker()
    layers = layers or {}
    made.rank = rank
    made.parallel_config = SimpleNamespace(
        tensor_parallel_size=2, pipeline_parallel_size=1, data_parallel_rank=0
    )
    made.device = SimpleNamespace(type="cpu")
    made.model_config = SimpleNamespace(enforce_eager=True)
    compilation = SimpleNamespace(
        static_all_moe_layers=list(layers),
        static_forward_context=layers,
        cudagraph_mode=GraphMode("NONE", "NONE"),
        cudagraph_capture_sizes=[],
    )
    made.vllm_config = SimpleNamespace(compilation_config=compilation)
    own = [runner for name, runner in layers.items() if name.startswith("model")]
    model = SimpleNamespace(modules=lambda: own)
    made.model_runner = SimpleNamespace(get_model=lambda: model)
    return made


def install(
    monkeypatch: pytest.MonkeyPatch,
    received: Received,
    *,
    version: str = "0.32.0",
    work: Callable[..., Any] | None = None,
) -> tuple[ModuleType, ModuleType]:
    """Put vLLM's modules there as 0.32 has them; returns the experts' and the worker's module.

    `work` is what a fused-MoE call gives, of its arguments.
    """
    vllm = ModuleType("vllm")
    vllm.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    experts = ModuleType(aligned_padding.MODULE)
    experts.rocm_aiter_ops = type("rocm_aiter_ops", (), {"fused_moe": _fused_moe(received, work)})  # type: ignore[attr-defined]
    experts.rocm_aiter_fused_experts = _experts(experts)  # type: ignore[attr-defined]
    workers = ModuleType(worker.MODULE)
    workers.Worker = type("Worker", (), dict(_METHODS))  # type: ignore[attr-defined]
    for module in (experts, workers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    shape.installed_vllm.cache_clear()
    shape.installed_aiter.cache_clear()
    shape.installed_tables.cache_clear()
    shape.declared_ksplit.cache_clear()
    return experts, workers


def _fused_moe(received: Received, work: Callable[..., Any] | None) -> "staticmethod[..., Any]":
    def fused_moe(
        hidden_states: Any,
        w1: Any,
        w2: Any = None,
        hidden_pad: int = 0,
        intermediate_pad: int = 0,
        gate_mode: str = "",
        bias1: Any = None,
    ) -> Any:
        received.append({"hidden_pad": hidden_pad, "intermediate_pad": intermediate_pad})
        return work(hidden_states, w1) if work else "result"

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


def _warm_up(self: Any) -> Any:
    return self.execute_model(
        SimpleNamespace(num_scheduled_tokens={"warm-up": 1}, total_num_scheduled_tokens=1)
    )


def _dummy(self: Any) -> Any:
    return self.run()


_METHODS = {
    "load_model": _load,
    "execute_model": _execute,
    "compile_or_warm_up_model": _warm_up,
    "execute_dummy_batch": _dummy,
}


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
