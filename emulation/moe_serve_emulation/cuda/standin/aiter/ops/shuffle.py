"""Stand-in for `aiter.ops.shuffle`: AITER's order of rows, in the emulated kernels' tiles."""

import torch
from moe_serve_emulation.cuda import layout


def shuffle_weight_a16w4(weights: torch.Tensor, lanes: int, gate_up: bool) -> torch.Tensor:
    """Codes [E, N, K/2]; of w1 from all gate, then all up rows to `lanes` of each in turn."""
    codes = weights.view(torch.uint8)
    codes = layout.interleaved_rows(codes, lanes) if gate_up else codes
    return layout.tiled_codes(codes).view(weights.dtype)


def shuffle_scale_a16w4(scales: torch.Tensor, experts: int, gate_up: bool) -> torch.Tensor:
    """Scales [E * N, K/32] in the same order as the weights."""
    by_expert = scales.view(torch.uint8).view(experts, -1, scales.shape[-1])
    by_expert = layout.interleaved_rows(by_expert) if gate_up else by_expert
    return layout.tiled_scales(by_expert).view(scales.shape).view(scales.dtype)
