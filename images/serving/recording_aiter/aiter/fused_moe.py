"""Records the pads of every call."""

from typing import Any

import torch

received: list[list[int]] = []


def fused_moe(
    hidden_states: torch.Tensor,
    *args: Any,
    hidden_pad: int = 0,
    intermediate_pad: int = 0,
    gate_mode: str = "",
    **kwargs: Any,
) -> torch.Tensor:
    """Keep the pads; the result is the input."""
    received.append([hidden_pad, intermediate_pad])
    return hidden_states.clone()
