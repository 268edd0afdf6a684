"""AITER's fused MoE on one GPU: two launches that read what a kernel of AMD's would read.

What is read follows from `skips` alone, as in the CPU's emulation: rows of the weights beyond a
limit read as zero, the columns end early, and what the grid leaves out is never written.
"""

import itertools
from dataclasses import dataclass

import torch
import triton

from moe_serve_emulation.cuda import kernels
from moe_serve_emulation.cuda.tiles import Tiles, tiles
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.skips import KernelConfig, Range, Reads, reads


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWeights:
    """One layer's experts. H and I are padded sizes.

    `w1` [E, 2I, H] and `w2` [E, H, I]: uint8 codes of half that width in the storage of
    `layout.tiled_codes` with `scales1` [E, 2I, H/32] and `scales2` [E, H, I/32] (MXFP4), or plain
    rows of bf16 or float32 without scales. `bias1` [E, 2I], `bias2` [E, H].
    `bias_interleaved`: whether `bias1` has the order of interleaved rows of w1.
    """

    w1: torch.Tensor
    w2: torch.Tensor
    bias1: torch.Tensor
    bias2: torch.Tensor
    scales1: torch.Tensor | None = None
    scales2: torch.Tensor | None = None
    bias_interleaved: bool = False

    @property
    def packed(self) -> bool:
        """Whether the weights are MXFP4."""
        return self.scales1 is not None

    @property
    def hidden(self) -> int:
        """Padded size of the residual stream."""
        return int(self.w2.shape[1])

    @property
    def inter(self) -> int:
        """Padded number of neurons."""
        return int(self.w1.shape[1]) // 2


def fused_moe(
    x: torch.Tensor,
    weights: ExpertWeights,
    shares: torch.Tensor,
    topk_ids: torch.Tensor,
    *,
    hidden_pad: int,
    intermediate_pad: int,
    config: KernelConfig,
    local: torch.Tensor | None = None,
    swiglu: bool = True,
    exact: bool = False,
    launch: Tiles | None = None,
) -> torch.Tensor:
    """Run both stages as the kernel of `config` would; returns [M, H] in x's dtype.

    x [M, H] with zeros in its hidden pad; `shares` and `topk_ids` [M, top_k], ids of all experts;
    `local` [all experts] maps them to this rank's (-1: another rank's; None: all are here).
    `exact` computes in float32, for conformance; `swiglu` False takes gate + 3 * up instead.

    Raises:
        EmulationError: the kernel cannot run with these sizes or pads.
    """
    hidden, inter, (tokens, top_k) = weights.hidden, weights.inter, topk_ids.shape
    plan = reads(
        hidden=hidden,
        inter=inter,
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        config=config,
    )
    experts = weights.w1.shape[0] if local is None else local.shape[0]
    chosen = launch or tiles(tokens, top_k, experts)
    routing = _routed(topk_ids, chosen.rows, experts, local)
    middle = _middle(x, tokens * top_k, inter, plan, config, exact=exact)
    _stage1(x, weights, middle, routing, plan, config, chosen, top_k, swiglu=swiglu, exact=exact)
    out = _stage2(middle, weights, shares, routing, plan, chosen, local is not None, exact=exact)
    return out.view(tokens, top_k, hidden).sum(1).to(x.dtype)


@dataclass(frozen=True, slots=True)
class _Routing:
    """Pairs (token times top_k plus slot) sorted by expert, in blocks that are filled up."""

    pairs: torch.Tensor
    experts: torch.Tensor
    padded: torch.Tensor
    blocks: int
    count: int


def _routed(ids: torch.Tensor, rows: int, experts: int, local: torch.Tensor | None) -> _Routing:
    count = ids.numel()
    if ids.is_cuda:
        from vllm.model_executor.layers.fused_moe.moe_align_block_size import moe_align_block_size

        pairs, of_block, padded = moe_align_block_size(ids, rows, experts, local)
    else:
        pairs, of_block, padded = aligned(ids, rows, local)
    # No more blocks than pairs are ever filled, nor more than vLLM allows for.
    return _Routing(pairs, of_block, padded, min(of_block.shape[0], count), count)


def aligned(
    ids: torch.Tensor, rows: int, local: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort pairs by expert and fill each expert's up to whole blocks, in torch on any device.

    Returns pairs [P], experts by block [P/rows] and P itself [1], int32; what fills up is the
    number of pairs.
    """
    flat = ids.flatten()
    flat = flat if local is None else local.to(flat.device)[flat.long()]
    pairs, blocks = [], []
    for expert in flat.unique().tolist():
        mine = (flat == expert).nonzero().flatten()
        filled = -(-len(mine) // rows) * rows
        pairs.append(torch.nn.functional.pad(mine, (0, filled - len(mine)), value=flat.numel()))
        blocks += [expert] * (filled // rows)
    sorted_pairs = torch.cat(pairs).to(torch.int32)
    of_block = torch.tensor(blocks, dtype=torch.int32, device=flat.device)
    return sorted_pairs, of_block, sorted_pairs.new_tensor([len(sorted_pairs)])


def _middle(
    x: torch.Tensor, pairs: int, inter: int, plan: Reads, config: KernelConfig, *, exact: bool
) -> torch.Tensor:
    middle = x.new_empty(pairs, inter, dtype=torch.float32 if exact else x.dtype)
    if plan.written < inter:
        middle[:, plan.written :] = config.poison
    return middle


def _stage1(
    x: torch.Tensor,
    weights: ExpertWeights,
    middle: torch.Tensor,
    routing: _Routing,
    plan: Reads,
    config: KernelConfig,
    chosen: Tiles,
    top_k: int,
    *,
    swiglu: bool,
    exact: bool,
) -> None:
    hidden, inter = weights.hidden, weights.inter
    gate, up = live_neurons(plan.rows, inter, interleaved=config.layout == "interleave")
    part, length = _parts(plan.k1)
    _require_whole(length, chosen.depth)
    kernels.stage1[(triton.cdiv(inter, chosen.width), routing.blocks)](
        x, weights.w1, _or(weights.scales1, weights.w1), weights.bias1, middle,
        routing.pairs, routing.experts, routing.padded,
        routing.count, hidden, inter, gate, up, plan.written, part, length // chosen.depth,
        TOP_K=top_k, SPLITS=len(plan.k1), INTERLEAVED=config.layout == "interleave",
        BIAS_INTERLEAVED=weights.bias_interleaved, SWIGLU=swiglu,
        PACKED=weights.packed, EXACT=exact, SWAP=chosen.swap,
        BM=chosen.rows, BN=chosen.width, BK=chosen.depth,
        num_warps=chosen.warps, num_stages=chosen.stages,
    )  # fmt: skip


def _stage2(
    middle: torch.Tensor,
    weights: ExpertWeights,
    shares: torch.Tensor,
    routing: _Routing,
    plan: Reads,
    chosen: Tiles,
    sharded: bool,
    *,
    exact: bool,
) -> torch.Tensor:
    hidden, inter = weights.hidden, weights.inter
    _, length = _parts(plan.k2)
    _require_whole(length, chosen.depth)
    # Pairs of other ranks' experts are never written.
    make = middle.new_zeros if sharded else middle.new_empty
    out = make(routing.count, hidden)
    kernels.stage2[(triton.cdiv(hidden, chosen.width), routing.blocks)](
        middle, weights.w2, _or(weights.scales2, weights.w2), weights.bias2, shares, out,
        routing.pairs, routing.experts, routing.padded,
        routing.count, hidden, inter, plan.columns, length // chosen.depth,
        PACKED=weights.packed, EXACT=exact, SWAP=chosen.swap,
        BM=chosen.rows, BN=chosen.width, BK=chosen.depth,
        num_warps=chosen.warps, num_stages=chosen.stages,
    )  # fmt: skip
    return out


def live_neurons(rows: tuple[Range, ...], inter: int, *, interleaved: bool) -> tuple[int, int]:
    """How many neurons, from the first, have gate rows and up rows within the ranges `rows`.

    `rows` are rows of w1 in stored order. Raises `EmulationError` where they are no beginning.
    """
    if interleaved:
        if len(rows) != 1 or rows[0][0] or rows[0][1] % 32:
            raise EmulationError(f"rows {rows} of interleaved weights are no whole pairs of 16")
        return rows[0][1] // 2, rows[0][1] // 2
    limits = [0, 0]
    for low, high in rows:
        for half in (0, 1):
            begin, end = max(low, half * inter), min(high, (half + 1) * inter)
            if begin < end:
                if begin != half * inter + limits[half]:
                    raise EmulationError(f"rows {rows} have a gap")
                limits[half] = end - half * inter
    return limits[0], limits[1]


def _parts(ranges: tuple[Range, ...]) -> tuple[int, int]:
    """Distance between the beginnings of equal parts, and the length that is read of each."""
    lengths = {high - low for low, high in ranges}
    distances = {b[0] - a[0] for a, b in itertools.pairwise(ranges)} or {0}
    if len(lengths) != 1 or len(distances) != 1 or ranges[0][0]:
        raise EmulationError(f"columns {ranges} are no equal parts")
    return distances.pop(), lengths.pop()


def _require_whole(length: int, depth: int) -> None:
    if length % depth:
        raise EmulationError(f"{length} columns are no whole tiles of {depth}")


def _or(scales: torch.Tensor | None, instead: torch.Tensor) -> torch.Tensor:
    return instead if scales is None else scales
