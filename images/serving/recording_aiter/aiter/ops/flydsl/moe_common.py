"""The layouts of w13 that vLLM names."""

from enum import Enum


class GateMode(Enum):
    """How gate and up rows stand in memory."""

    SEPARATED = "separated"
    INTERLEAVE = "interleave"
