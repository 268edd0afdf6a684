"""Stand-in for `aiter.fused_moe` on an NVIDIA GPU: AITER's call, carried out in Triton.

It dispatches as AITER 0.1.16 does for GPT-OSS in MXFP4 with bf16 activations: to CK-tile, in one
split for interleaved weights and in two for separated ones; with
MOE_SERVE_EMULATE_AITER_CUDA=flydsl as 0.1.15 does where it goes to FlyDSL.
"""

import os

import torch
from aiter import ActivationType, QuantType
from aiter.ops.flydsl.moe_common import GateMode
from moe_serve_emulation.cuda import experts
from moe_serve_emulation.cuda.seam import VARIABLE
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.skips import KernelConfig

_CONFIGS = {
    GateMode.INTERLEAVE.value: KernelConfig(path="cktile", layout="interleave"),
    GateMode.SEPARATED.value: KernelConfig(path="cktile", layout="separated", split_k=2),
}
_FLYDSL = KernelConfig(path="flydsl", tile_n=128)


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
    if activation != ActivationType.Swiglu or quant_type not in (QuantType.per_1x32, QuantType.No):
        raise EmulationError(f"emulated AITER: not emulated: {activation!r} with {quant_type!r}")
    if doweight_stage1 or num_local_tokens is not None or bias1 is None or bias2 is None:
        raise EmulationError("emulated AITER: no weights in stage 1, and no experts without bias")
    packed = quant_type == QuantType.per_1x32
    weights = experts.ExpertWeights(
        w1=w1.view(torch.uint8) if packed else w1,
        w2=w2.view(torch.uint8) if packed else w2,
        bias1=bias1,
        bias2=bias2,
        scales1=w1_scale if packed else None,
        scales2=w2_scale if packed else None,
    )
    flydsl = os.environ.get(VARIABLE) == "flydsl"
    out = experts.fused_moe(
        hidden_states,
        weights,
        topk_weight,
        topk_ids,
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        config=_FLYDSL if flydsl else _CONFIGS[gate_mode],
        local=None if expert_mask is None else _local(expert_mask),
    )
    return out if dtype is None else out.to(dtype)


def _local(mask: torch.Tensor) -> torch.Tensor:
    """Each expert's number on this rank, -1 for the others', from AITER's mask of ones."""
    return torch.where(mask > 0, mask.cumsum(0) - 1, -1).to(torch.int32)
