"""Stand-in for `aiter.fused_moe`: AITER's call, carried out by the emulated kernel.

It dispatches as AITER 0.1.16 does for GPT-OSS in MXFP4 with bf16 activations: to CK-tile, in one
split for interleaved weights and in two for separated ones; with MOE_SERVE_EMULATE_AITER=flydsl as
0.1.15 does where it goes to FlyDSL. Weights come prepacked
(`moe_serve_emulation.kernel.prepack`), as AITER's come shuffled.
"""

import os

import torch
from moe_serve_emulation import kernel
from moe_serve_emulation.errors import EmulationError

from aiter import ActivationType, QuantType
from aiter.ops.flydsl.moe_common import GateMode

_CONFIGS = {
    GateMode.INTERLEAVE.value: kernel.KernelConfig(path="cktile", layout="interleave"),
    GateMode.SEPARATED.value: kernel.KernelConfig(path="cktile", layout="separated", split_k=2),
}
_FLYDSL = kernel.KernelConfig(path="flydsl", tile_n=128)


def _config(gate_mode: str) -> kernel.KernelConfig:
    flydsl = os.environ.get("MOE_SERVE_EMULATE_AITER") == "flydsl"
    return _FLYDSL if flydsl else _CONFIGS[gate_mode]


def fused_moe(
    hidden_states: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weight: torch.Tensor,
    topk_ids: torch.Tensor,
    expert_mask: torch.Tensor | None = None,
    activation: ActivationType = ActivationType.Silu,
    quant_type: QuantType = QuantType.No,
    doweight_stage1: bool = False,
    w1_scale: torch.Tensor | None = None,
    w2_scale: torch.Tensor | None = None,
    a1_scale: torch.Tensor | None = None,
    a2_scale: torch.Tensor | None = None,
    block_size_M: int | None = None,  # noqa: N803 (AITER's own name)
    num_local_tokens: torch.Tensor | None = None,
    moe_sorting_dispatch_policy: int = 0,
    dtype: torch.dtype | None = None,
    hidden_pad: int = 0,
    intermediate_pad: int = 0,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    swiglu_limit: float | None = None,
    gate_mode: str = GateMode.SEPARATED.value,
) -> torch.Tensor:
    """Run the emulated kernel; returns [M, H].

    Raises `EmulationError` for an activation, a quantisation or an option that it does not emulate.
    """
    if activation != ActivationType.Swiglu or quant_type != QuantType.per_1x32:
        raise EmulationError(f"emulated AITER: not emulated: {activation!r} with {quant_type!r}")
    if expert_mask is not None or doweight_stage1 or num_local_tokens is not None:
        raise EmulationError("emulated AITER: no expert parallelism and no stage 1 weights here")
    out = kernel.fused_moe(
        hidden_states,
        w1,
        w2,
        topk_weight,
        topk_ids,
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        bias1=bias1,
        bias2=bias2,
        config=_config(gate_mode),
        prepacked=True,
    )
    return out if dtype is None else out.to(dtype)
