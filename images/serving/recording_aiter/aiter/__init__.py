"""AITER's names that vLLM asks for, and nothing that computes."""

from enum import IntEnum


class ActivationType(IntEnum):
    """The activations of AITER."""

    No = -1
    Silu = 0
    Gelu = 1
    Swiglu = 2


class QuantType(IntEnum):
    """The quantisations of AITER."""

    No = 0
    per_Tensor = 1
    per_Token = 2
    per_1x32 = 3
    per_1x128 = 4
    per_128x128 = 5
