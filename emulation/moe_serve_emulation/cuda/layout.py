"""How MXFP4 weights lie in memory for the kernels of `kernels.py`.

A checkpoint's expert weight [N, K] in MXFP4 is `blocks` [N, K/32, 16] (two e2m1 codes a byte, the
low nibble first) and `scales` [N, K/32] (e8m0, bias 127). The kernels want both tiled: 16 rows by
128 columns lie in one piece of memory (1 KiB of codes and 64 bytes of scales), as AITER's own
shuffle keeps a tile together. Within 32 columns byte j holds column j low and column j + 16 high,
so that the two halves of a byte meet two contiguous runs of the activations.
"""

import torch

# Rows and columns of one contiguous piece.
TILE_ROWS, TILE_COLUMNS = 16, 128
# Columns that share one scale.
GROUP = 32
# e2m1: sign, two bits of exponent, one of mantissa.
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_BIAS = 127


def interleaved_rows(rows: torch.Tensor, lanes: int = TILE_ROWS) -> torch.Tensor:
    """Return [E, N, ...] reordered from all gate, then all up rows to `lanes` of each in turn."""
    experts, count = rows.shape[:2]
    split = rows.view(experts, 2, count // 2 // lanes, lanes, *rows.shape[2:])
    return split.transpose(1, 2).reshape(rows.shape)


def tiled_codes(codes: torch.Tensor) -> torch.Tensor:
    """Return uint8 codes [E, N, K/2] with the kernels' storage behind the same shape."""
    experts, rows, half = codes.shape
    groups = codes.view(experts, rows, half // 16, 16)
    low, high = groups & 15, groups >> 4
    # Column 2i is the low nibble of byte i: back to columns, then j and j + 16 into one byte.
    columns = torch.stack((low, high), dim=-1).flatten(-2)
    packed = columns[..., :16] | (columns[..., 16:] << 4)
    tiles = packed.view(experts, rows // TILE_ROWS, TILE_ROWS, half * 2 // TILE_COLUMNS, -1)
    return tiles.transpose(2, 3).reshape(codes.shape)


def tiled_scales(scales: torch.Tensor) -> torch.Tensor:
    """Return uint8 scales [E, N, K/32] with the kernels' storage behind the same shape."""
    experts, rows, groups = scales.shape
    per_tile = TILE_COLUMNS // GROUP
    tiles = scales.view(experts, rows // TILE_ROWS, TILE_ROWS, groups // per_tile, per_tile)
    return tiles.transpose(2, 3).reshape(scales.shape)


def quantise(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round weights [..., K] to MXFP4; returns codes [..., K/2] and scales [..., K/32], uint8.

    Each group of 32 takes the largest power of two that leaves its largest value at most 6 after
    rounding to the nearest code.
    """
    groups = weights.float().unflatten(-1, (-1, GROUP))
    largest = groups.abs().amax(-1, keepdim=True)
    # 6 * 2**e must reach the largest value: e = ceil(log2(largest / 6)), nothing below 2**-127.
    exponent = torch.ceil(torch.log2(largest.clamp(min=2.0**-120) / 6.0)).clamp(-_BIAS, _BIAS)
    scaled = groups / torch.exp2(exponent)
    values = torch.tensor(VALUES, device=weights.device)
    middles = (values[1:] + values[:-1]) / 2
    code = torch.bucketize(scaled.abs().contiguous(), middles).to(torch.uint8)
    code |= (scaled < 0).to(torch.uint8) << 3
    pairs = code.flatten(-2).unflatten(-1, (-1, 2))
    return pairs[..., 0] | (pairs[..., 1] << 4), (exponent[..., 0] + _BIAS).to(torch.uint8)


def values_of(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return what MXFP4 codes [..., K/2] and scales [..., K/32] (untiled) stand for, float32."""
    table = torch.tensor(VALUES + tuple(-value for value in VALUES), device=codes.device)
    pairs = torch.stack((table[(codes & 15).long()], table[(codes >> 4).long()]), dim=-1)
    return pairs.flatten(-2) * torch.exp2(scales.float() - _BIAS).repeat_interleave(GROUP, -1)
