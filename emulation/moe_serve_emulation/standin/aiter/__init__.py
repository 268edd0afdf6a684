"""Stand-in for AMD's AITER on a CPU: the names that vLLM's fused MoE path imports, no more.

vLLM sends both enums as numbers: QuantType's are those of vLLM's own `QuantMethod`.
"""

from enum import IntEnum

import torch


class ActivationType(IntEnum):
    """Activation between the two stages; the emulation runs Swiglu alone."""

    No = -1
    Silu = 0
    Gelu = 1
    Swiglu = 2


class QuantType(IntEnum):
    """Quantisation of the weights; the emulation takes per_1x32 (MXFP4) for what it computes."""

    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5


class dtypes:  # noqa: N801 (AITER's own name)
    """The dtype names that vLLM looks up."""

    bf16 = torch.bfloat16
    fp32 = torch.float32
    fp4x2 = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
