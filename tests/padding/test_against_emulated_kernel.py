"""The contract against the emulated kernel, in both directions, over random dimensions.

Weights, activations and routing are positive whole numbers in float64, so every sum is exact and
whatever is left out makes the output strictly smaller: equality is bit equality.
"""

import pytest

torch = pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from moe_serve_emulation import kernel as emulated  # noqa: E402

from moe_serve.padding.aiter_eras import aiter_build  # noqa: E402
from moe_serve.padding.contract import Call, PaddingPolicy, assess  # noqa: E402
from moe_serve.padding.kernels import Kernel, KernelPath, KernelPhase, skips  # noqa: E402
from moe_serve.padding.shapes import Layout, Pads, Shard  # noqa: E402
from moe_serve.padding.vllm_eras import vllm_build  # noqa: E402

pytestmark = pytest.mark.torch

EXPERTS, TOKENS = 2, 2


@st.composite
def shards(draw: st.DrawFn) -> Shard:
    hidden, width = draw(st.sampled_from([256, 512, 768])), draw(st.sampled_from([256, 512, 768]))
    return Shard(
        hidden=draw(st.integers(max(1, hidden - 255), hidden)),
        intermediate=draw(st.integers(max(1, width - 255), width)),
        padded_hidden=hidden,
        padded_intermediate=width,
        experts=EXPERTS,
        top_k=1,
        moe_tp=1,
    )


@st.composite
def kernels(draw: st.DrawFn, part: Shard) -> Kernel:
    path = draw(st.sampled_from([KernelPath.CKTILE, KernelPath.FLYDSL, KernelPath.CK2STAGES]))
    tiles = part.padded_hidden // 256
    return Kernel(
        path=path,
        phase=KernelPhase.DECODE,
        layout=draw(st.sampled_from(list(Layout))),
        split_k=draw(st.sampled_from([n for n in (1, 2, 3) if tiles % n == 0])),
        tile_n=draw(st.sampled_from([64, 128, 256])),
        honours_pads=draw(st.booleans()),
        covers_tail=draw(st.booleans()),
    )


def expert_weights(
    part: Shard, layout: Layout, seed: int, *, in_padding: float = 0.0
) -> dict[str, "torch.Tensor"]:
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> "torch.Tensor":
        return torch.randint(1, 3, shape, generator=generator).to(torch.float64)

    wide, high = part.padded_intermediate, part.padded_hidden
    w13 = torch.full((EXPERTS, 2, wide, high), in_padding, dtype=torch.float64)
    w13[:, :, : part.intermediate, : part.hidden] = whole(
        EXPERTS, 2, part.intermediate, part.hidden
    )
    bias = torch.zeros((EXPERTS, 2, wide), dtype=torch.float64)
    bias[:, :, : part.intermediate] = whole(EXPERTS, 2, part.intermediate)
    w2 = torch.full((EXPERTS, high, wide), in_padding, dtype=torch.float64)
    w2[:, : part.hidden, : part.intermediate] = whole(EXPERTS, part.hidden, part.intermediate)
    if layout is Layout.INTERLEAVE:  # g0..15, u0..15, g16..31, ...
        w13 = w13.reshape(EXPERTS, 2, wide // 16, 16, high).transpose(1, 2)
        bias = bias.reshape(EXPERTS, 2, wide // 16, 16).transpose(1, 2)
    x = torch.zeros((TOKENS, high), dtype=torch.float64)
    x[:, : part.hidden] = whole(TOKENS, part.hidden)
    return {
        "x": x,
        "w1": w13.reshape(EXPERTS, 2 * wide, high).contiguous(),
        "w2": w2,
        "bias1": bias.reshape(EXPERTS, 2 * wide).contiguous(),
    }


def exact_activation(gate: "torch.Tensor", up: "torch.Tensor") -> "torch.Tensor":
    return gate * (up + 1)


def run(kernel: Kernel, tensors: dict[str, "torch.Tensor"], sent: Pads) -> "torch.Tensor":
    path = "ignores" if kernel.path is KernelPath.CK2STAGES else kernel.path.value
    return emulated.fused_moe(
        tensors["x"],
        tensors["w1"],
        tensors["w2"],
        torch.ones((TOKENS, 1), dtype=torch.float64),
        torch.arange(TOKENS).reshape(TOKENS, 1) % EXPERTS,
        hidden_pad=sent.hidden,
        intermediate_pad=sent.intermediate,
        bias1=tensors["bias1"],
        config=emulated.KernelConfig(
            path=path,
            layout=kernel.layout.value,
            split_k=kernel.split_k if kernel.path is KernelPath.CKTILE else 1,
            tile_n=kernel.tile_n,
            honours_pads=kernel.honours_pads,
            covers_tail=kernel.covers_tail,
        ),
        activation=exact_activation,
    )


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_loss_is_reported_exactly_where_the_output_differs(data: st.DataObject) -> None:
    part = data.draw(shards())
    kernel = data.draw(kernels(part))
    sent = Pads(
        hidden=data.draw(st.integers(0, min(320, part.padded_hidden - 1))),
        intermediate=data.draw(st.integers(0, min(320, part.padded_intermediate - 1))),
    )
    tensors = expert_weights(part, kernel.layout, seed=data.draw(st.integers(0, 9)))

    found = skips(kernel, part, sent)
    got = run(kernel, tensors, sent)[:, : part.hidden]
    whole = run(kernel, tensors, Pads(hidden=0, intermediate=0))[:, : part.hidden]

    assert (found.lost.anything or found.uninitialised > 0) == (not torch.equal(got, whole))
    if found.elements(part) < part.ideal_elements:
        assert not torch.equal(got, whole)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_aligned_pads_change_nothing_on_any_kernel_that_the_call_can_reach(
    data: st.DataObject,
) -> None:
    part = data.draw(shards())
    layout = data.draw(st.sampled_from(list(Layout)))
    call = Call(
        part=part,
        vllm=vllm_build("0.32.0"),
        aiter=aiter_build(data.draw(st.sampled_from(["0.1.14", "0.1.15", "0.1.16", "0.1.20"]))),
        layout=layout,
        bias=data.draw(st.booleans()),
    )
    sent = assess(call, PaddingPolicy.ALIGNED).sent
    tensors = expert_weights(part, layout, seed=1)

    for kernel in call.kernels:
        # How a kernel splits a width that its split does not divide is not known.
        divides = part.padded_hidden % (256 * kernel.split_k) == 0
        if divides and kernel.path in (KernelPath.CKTILE, KernelPath.FLYDSL, KernelPath.CK2STAGES):
            got, whole = (run(kernel, tensors, p) for p in (sent, Pads(hidden=0, intermediate=0)))
            assert torch.equal(got[:, : part.hidden], whole[:, : part.hidden]), kernel


def test_padding_that_holds_no_zeros_changes_the_output_of_a_lossless_skip() -> None:
    part = Shard(
        hidden=400,
        intermediate=300,
        padded_hidden=512,
        padded_intermediate=512,
        experts=EXPERTS,
        top_k=1,
        moe_tp=1,
    )
    kernel = Kernel(path=KernelPath.CKTILE, phase=KernelPhase.DECODE)
    sent = Pads(hidden=0, intermediate=128)

    clean = run(kernel, expert_weights(part, kernel.layout, 0), sent)
    poisoned = run(kernel, expert_weights(part, kernel.layout, 0, in_padding=6.0), sent)

    assert not torch.equal(clean[:, : part.hidden], poisoned[:, : part.hidden])
