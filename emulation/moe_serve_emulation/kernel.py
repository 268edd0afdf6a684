"""AITER's fused MoE in torch on a CPU, which does not read what the kernels do not read.

The weights lie in blocks, because an earlier emulation by slices, `x @ w[:n, :k].T` in bf16,
showed 1.27 to 1.34 for pads (192, 192) where the bytes say 1.113. Found on an AVX-512 Xeon with
300 MiB of L3 (and an AVX2 EPYC), one thread, 1 to 8 tokens:
 - Order: whoever touches an expert first finds it cold. Arms in a fixed order on the same expert
   showed 1.21 to 1.25 for zero against zero; with arms rotated and another expert each call, 1.00.
 - Shape: what is left with slices is 1.15 and 1.20 to 1.22 (bytes: 1.113 and 1.174), since the GEMM
   picks kernel, packing and blocking by shape. On AVX2 it ranges from 1.04 to 1.18 for the first.
 - Aliasing: a row of 3072 floats is 12288 bytes, a multiple of 4096, so neighbouring rows share
   cache sets: 16.0 ms, and 11.0 with 16 floats between rows (AVX2, 4 tokens, nothing skipped).
So rows lie in blocks of 16, each stored column by column and hence contiguous, packed once at load
and alike for all pads. A GEMM is a batch of equal small products; a skip leaves out whole blocks or
the end of each block. Measured so: 1.09 to 1.10 and 1.15 (spread of runs 0.02), 0.99 to 1.00 for
zero against zero; the rest is cost that no arm can skip. Lossless pads give
bit-equal outputs, on some Xeons only with MKL_CBWR=AVX2,STRICT: else MKL sums by shape, and last
bits differ. float32, as torch's bf16 GEMM has no AVX2 kernel: twice the bytes in every arm.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.skips import KernelConfig as KernelConfig
from moe_serve_emulation.skips import Range, Reads, everything, reads

Activation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# Weight rows a block; a GEMM is a batch of equal (tokens x K) @ (K x 16) products.
BLOCK_ROWS = 16
# Tokens are filled up to a multiple of this, except a single one: MKL's best inner kernel.
TOKEN_GROUP = 4


def swiglu_oai(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """GPT-OSS's SwiGLU: gate and up clamped at 7, alpha 1.702, up + 1. Shapes alike."""
    gate = gate.clamp(max=7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up.clamp(-7.0, 7.0) + 1.0)


def prepack(weights: torch.Tensor) -> torch.Tensor:
    """Weights [E, N, K] in the kernel's block order, as float32 (float64 stays float64).

    The shape is kept and the storage is permuted, as by AITER's weight shuffle: 16 rows make one
    block, stored column by column. Call it once, at load; it does not depend on the pads.
    """
    packed = torch.empty(weights.shape, dtype=compute_dtype(weights))
    blocks(packed).copy_(weights.unflatten(1, (-1, BLOCK_ROWS)).transpose(2, 3))
    return packed


def blocks(packed: torch.Tensor) -> torch.Tensor:
    """A view of prepacked weights [E, N, K] as their blocks [E, N/16, K, 16]."""
    experts, rows, columns = packed.shape
    return packed.view(experts, rows // BLOCK_ROWS, columns, BLOCK_ROWS)


def compute_dtype(weights: torch.Tensor) -> torch.dtype:
    """The dtype in which GEMMs with these weights run."""
    return torch.float64 if weights.dtype == torch.float64 else torch.float32


def interleave16(weights: torch.Tensor) -> torch.Tensor:
    """Weights [.., 2I, ..] reordered from [gate; up] to 16 gate and 16 up rows in turn (dim 1)."""
    inter = weights.shape[1] // 2
    split = weights.unflatten(1, (2, inter // 16, 16))
    return split.transpose(1, 2).flatten(1, 3)


def fused_moe(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    *,
    hidden_pad: int,
    intermediate_pad: int,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    config: KernelConfig,
    activation: Activation = swiglu_oai,
    prepacked: bool = False,
) -> torch.Tensor:
    """The output [M, H] of both stages as the kernel of `config` computes it, in x's dtype.

    x [M, H] zero-filled in its hidden pad; w1 [E, 2I, H] and bias1 [E, 2I] in stored row order;
    w2 [E, H, I]; bias2 [E, H]; topk_weights and topk_ids [M, top_k]. H and I are padded sizes,
    the pads are those that the caller passes. A row that reads as zero still gets its bias.
    Weights in float64 are computed in float64, all others in float32. Weights that did not
    come from `prepack` are packed by each call, which costs more than the GEMMs.

    Raises:
        EmulationError: shapes do not fit, or the kernel cannot run with these sizes or pads.
    """
    _require_shapes(x, w1, w2)
    plan = reads(
        hidden=w2.shape[1],
        inter=w2.shape[2],
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        config=config,
    )
    if not prepacked:
        w1, w2 = prepack(w1), prepack(w2)
    experts = _Experts(w1=blocks(w1), w2=blocks(w2), bias1=bias1, bias2=bias2)
    return _run(x, experts, topk_weights, topk_ids, plan, config, activation)


def reference(
    x: torch.Tensor,
    w1: torch.Tensor,
    w2: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    *,
    bias1: torch.Tensor | None = None,
    bias2: torch.Tensor | None = None,
    config: KernelConfig,
    activation: Activation = swiglu_oai,
    prepacked: bool = False,
) -> torch.Tensor:
    """The output of `fused_moe` without any skip; only the layout of `config` matters."""
    _require_shapes(x, w1, w2)
    plan = everything(hidden=w2.shape[1], inter=w2.shape[2])
    if not prepacked:
        w1, w2 = prepack(w1), prepack(w2)
    experts = _Experts(w1=blocks(w1), w2=blocks(w2), bias1=bias1, bias2=bias2)
    return _run(x, experts, topk_weights, topk_ids, plan, config, activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experts:
    w1: torch.Tensor
    w2: torch.Tensor
    bias1: torch.Tensor | None
    bias2: torch.Tensor | None


def _run(
    x: torch.Tensor,
    experts: _Experts,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    plan: Reads,
    config: KernelConfig,
    activation: Activation,
) -> torch.Tensor:
    dtype = experts.w1.dtype
    wide, shares = x.to(dtype), topk_weights.to(dtype)
    y = torch.zeros_like(wide)
    for expert in topk_ids.unique().tolist():
        tokens, slots = (topk_ids == expert).nonzero(as_tuple=True)
        gate_up = _stage1(_filled(wide[tokens]), experts.w1[expert], plan)
        if experts.bias1 is not None:
            gate_up += experts.bias1[expert].to(dtype)
        a2 = activation(*_halves(gate_up, config)).to(x.dtype).to(dtype)
        a2[:, plan.written :] = config.poison
        out = _stage2(a2, experts.w2[expert], plan)
        if experts.bias2 is not None:
            out += experts.bias2[expert].to(dtype)
        y.index_add_(0, tokens, out[: len(tokens)] * shares[tokens, slots, None])
    return y.to(x.dtype)


def _filled(x: torch.Tensor) -> torch.Tensor:
    missing = -len(x) % TOKEN_GROUP if len(x) > 1 else 0
    return torch.nn.functional.pad(x, (0, 0, 0, missing))


def _stage1(x: torch.Tensor, w1: torch.Tensor, plan: Reads) -> torch.Tensor:
    out = x.new_zeros(len(x), len(w1) * BLOCK_ROWS)
    for low, high in plan.rows:
        out[:, low:high] = _gemm(x, w1[low // BLOCK_ROWS : high // BLOCK_ROWS], plan.k1)
    return out


def _stage2(a2: torch.Tensor, w2: torch.Tensor, plan: Reads) -> torch.Tensor:
    out = a2.new_zeros(len(a2), len(w2) * BLOCK_ROWS)
    out[:, : plan.columns] = _gemm(a2, w2[: plan.columns // BLOCK_ROWS], plan.k2)
    return out


def _gemm(x: torch.Tensor, weights: torch.Tensor, k: tuple[Range, ...]) -> torch.Tensor:
    """Multiply [M, K] by blocks [n, K, 16] over the ranges `k` alone; returns [M, 16n]."""
    parts = [
        torch.bmm(x[:, low:high].expand(len(weights), -1, -1), weights[:, low:high])
        for low, high in k
    ]
    total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
    return total.transpose(0, 1).reshape(len(x), -1)


def _halves(gate_up: torch.Tensor, config: KernelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    if config.layout == "separated":
        gate, up = gate_up.chunk(2, dim=1)
        return gate, up
    pairs = gate_up.unflatten(1, (-1, 2, 16))
    return pairs[:, :, 0].flatten(1), pairs[:, :, 1].flatten(1)


def _require_shapes(x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> None:
    experts, hidden, inter = w2.shape
    if x.shape[1] != hidden or tuple(w1.shape) != (experts, 2 * inter, hidden):
        raise EmulationError(
            f"shapes do not fit: x {list(x.shape)}, w1 {list(w1.shape)}, w2 {list(w2.shape)}; "
            "expected [M, H], [E, 2I, H], [E, H, I], all padded alike"
        )
    if inter % 16 or hidden % 16:
        raise EmulationError(f"sizes {hidden}, {inter} are not multiples of 16: pad the weights")
