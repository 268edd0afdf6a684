"""The cases that an emulated kernel on a GPU must answer as the CPU's kernel does, exactly.

Weights, activations and routing are positive whole numbers, so that each weight that is skipped
changes the answer; sums stay below 2**24 and are exact in float32.
"""

import random
from dataclasses import dataclass
from typing import Any

import torch
from moe_serve_emulation import kernel as cpu
from moe_serve_emulation.cuda import experts, layout
from moe_serve_emulation.skips import KernelConfig, Reads, reads

__all__ = ["Reads", "reads"]
EXPERTS, TOP_K = 3, 2
EXACT_BELOW = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Pads of one call to one kernel build, at padded sizes."""

    hidden: int
    inter: int
    hidden_pad: int
    intermediate_pad: int
    config: KernelConfig
    tokens: int = 5
    seed: int = 1

    def __str__(self) -> str:
        """A name for a test."""
        config = self.config
        return (
            f"{config.path}-{config.layout}-k{config.split_k}-n{config.tile_n}-"
            f"{self.hidden}x{self.inter}-{self.hidden_pad}/{self.intermediate_pad}"
        )


def named() -> list[Case]:
    """The situations of the CPU kernel's own tests (`test_kernel.py`)."""
    sizes = {"hidden": 512, "inter": 768}
    separated = KernelConfig(layout="separated")
    flydsl = KernelConfig(path="flydsl", tile_n=128)
    covered = KernelConfig(path="flydsl", tile_n=128, covers_tail=True)
    return [
        Case(**sizes, hidden_pad=0, intermediate_pad=0, config=KernelConfig()),
        Case(**sizes, hidden_pad=200, intermediate_pad=130, config=KernelConfig()),
        Case(**sizes, hidden_pad=0, intermediate_pad=130, config=separated),
        Case(**sizes, hidden_pad=0, intermediate_pad=0, config=KernelConfig(split_k=2)),
        Case(**sizes, hidden_pad=128, intermediate_pad=0, config=KernelConfig(split_k=2)),
        Case(**sizes, hidden_pad=0, intermediate_pad=96, config=flydsl),
        Case(**sizes, hidden_pad=0, intermediate_pad=96, config=covered),
        Case(**sizes, hidden_pad=256, intermediate_pad=0, config=KernelConfig(path="flydsl")),
        Case(**sizes, hidden_pad=128, intermediate_pad=320, config=KernelConfig(path="ignores")),
        Case(hidden=512, inter=512, hidden_pad=128, intermediate_pad=256, config=KernelConfig()),
    ]


def drawn(count: int, seed: int) -> list[Case]:
    """Random sizes, pads and kernel builds, those that a kernel can run with."""
    draw, found = random.Random(seed), []
    while len(found) < count:
        hidden, inter = (draw.choice([256, 512, 768]) for _ in range(2))
        path = draw.choice(["cktile", "flydsl", "ignores"])
        splits = [n for n in (1, 2, 3) if hidden // 256 % n == 0] if path == "cktile" else [1]
        config = KernelConfig(
            path=path,
            layout=draw.choice(["interleave", "separated"]),
            split_k=draw.choice(splits),
            tile_n=draw.choice([64, 128, 256]),
            honours_pads=draw.random() < 0.8,
            covers_tail=draw.random() < 0.5,
        )
        found.append(
            Case(
                hidden=hidden,
                inter=inter,
                hidden_pad=draw.randrange(min(320, hidden)),
                intermediate_pad=draw.randrange(min(320, inter)),
                config=config,
                tokens=draw.choice([1, 2, 5, 17]),
                seed=len(found),
            )
        )
    return found


def linear(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """What the kernel on the GPU takes for its activation where numbers must stay whole."""
    return gate + 3 * up


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's experts and a batch, on the CPU: rows of w1 in stored order, float64."""

    x: torch.Tensor
    w1: torch.Tensor
    w2: torch.Tensor
    bias1: torch.Tensor
    bias2: torch.Tensor
    shares: torch.Tensor
    ids: torch.Tensor


def layer(case: Case) -> Layer:
    """Whole numbers for a case; what the pads skip is no zero, so that it shows."""
    generator = torch.Generator().manual_seed(case.seed)

    def whole(*shape: int, high: int = 3) -> torch.Tensor:
        return torch.randint(1, high, shape, generator=generator).to(torch.float64)

    ids = torch.stack([torch.randperm(EXPERTS, generator=generator) for _ in range(case.tokens)])
    return Layer(
        x=whole(case.tokens, case.hidden, high=2),
        w1=whole(EXPERTS, 2 * case.inter, case.hidden),
        w2=whole(EXPERTS, case.hidden, case.inter),
        bias1=whole(EXPERTS, 2 * case.inter),
        bias2=whole(EXPERTS, case.hidden),
        shares=whole(case.tokens, TOP_K, high=2),
        ids=ids[:, :TOP_K].to(torch.int32).contiguous(),
    )


def expected(case: Case, made: Layer) -> torch.Tensor:
    """What the CPU's kernel answers, float64."""
    return cpu.fused_moe(
        made.x, made.w1, made.w2, made.shares, made.ids,
        hidden_pad=case.hidden_pad, intermediate_pad=case.intermediate_pad,
        bias1=made.bias1, bias2=made.bias2, config=case.config, activation=linear,
    )  # fmt: skip


def answered(case: Case, made: Layer, device: str, *, packed: bool, **more: Any) -> torch.Tensor:
    """What the kernel on `device` answers, in float32, back on the CPU as float64."""
    weights = (packed_weights if packed else plain_weights)(case, made, device)
    out = experts.fused_moe(
        made.x.float().to(device), weights, made.shares.float().to(device), made.ids.to(device),
        hidden_pad=case.hidden_pad, intermediate_pad=case.intermediate_pad, config=case.config,
        swiglu=False, exact=True, **more,
    )  # fmt: skip
    return out.double().cpu()


def plain_weights(case: Case, made: Layer, device: str) -> experts.ExpertWeights:
    """The layer's weights as rows of float32."""
    return experts.ExpertWeights(
        w1=made.w1.float().to(device),
        w2=made.w2.float().to(device),
        bias1=made.bias1.float().to(device),
        bias2=made.bias2.float().to(device),
        bias_interleaved=case.config.layout == "interleave",
    )


def packed_weights(case: Case, made: Layer, device: str) -> experts.ExpertWeights:
    """The same weights in MXFP4, tiled; whole numbers up to 6 lose nothing."""
    packed = {}
    for name, rows in (("1", made.w1), ("2", made.w2)):
        codes, scales = layout.quantise(rows)
        assert torch.equal(layout.values_of(codes, scales).double(), rows)
        packed[f"w{name}"] = layout.tiled_codes(codes).to(device)
        packed[f"scales{name}"] = layout.tiled_scales(scales).to(device)
    plain = plain_weights(case, made, device)
    return experts.ExpertWeights(
        **packed, bias1=plain.bias1, bias2=plain.bias2, bias_interleaved=plain.bias_interleaved
    )
