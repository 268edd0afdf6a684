"""The emulated fused MoE on a real GPU: the CPU kernel's answers, and bf16 near float32's."""

from dataclasses import replace
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this PyTorch sees no GPU"),
]

HIDDEN = INTER = 3072
LIVE = 2880
EXPERTS, TOP_K = 8, 4
ERROR = 0.01


@pytest.mark.parametrize("test", ["named", "swapped", "poisoned", "sharded"])
def test_kernel_on_the_device_answers_as_the_cpu_kernel(test: str) -> None:
    """What is skipped, what is never written (poison) and what stays, exactly."""
    from tests.emulation import interpreted_cuda_kernel as conformance

    conformance.TESTS[test](device="cuda")


def test_drawn_calls_on_the_device_answer_as_the_cpu_kernel() -> None:
    """Random sizes, pads and kernel builds, exactly."""
    from tests.emulation import interpreted_cuda_kernel as conformance

    conformance.drawn(device="cuda", count=60)


@pytest.fixture(scope="module")
def layer() -> Any:
    """One layer of GPT-OSS's widths: random MXFP4, zeros in its padding."""
    from moe_serve_emulation.cuda import layout

    make = torch.Generator().manual_seed(1)

    def rows(count: int, live: int, columns: int) -> Any:
        weights = torch.zeros(EXPERTS, count, columns)
        drawn = torch.randn(EXPERTS, live, LIVE, generator=make) * LIVE**-0.5
        weights[:, :live, :LIVE] = drawn
        codes, scales = layout.quantise(weights.cuda())
        return codes, scales, layout.values_of(codes, scales)

    gate, up, down = rows(INTER, LIVE, HIDDEN), rows(INTER, LIVE, HIDDEN), rows(HIDDEN, LIVE, INTER)
    w1 = [torch.cat(pair, 1) for pair in zip(gate, up, strict=True)]
    bias1 = torch.zeros(EXPERTS, 2, INTER)
    bias1[:, :, :LIVE] = torch.randn(EXPERTS, 2, LIVE, generator=make) * 0.1
    bias2 = torch.zeros(EXPERTS, HIDDEN)
    bias2[:, :LIVE] = torch.randn(EXPERTS, LIVE, generator=make) * 0.1
    return w1, down, bias1.flatten(1).cuda(), bias2.cuda()


def weights_of(layer: Any) -> Any:
    """The layer as the kernel wants it."""
    from moe_serve_emulation.cuda import experts, layout

    (codes1, scales1, _), (codes2, scales2, _), bias1, bias2 = layer
    return experts.ExpertWeights(
        w1=layout.tiled_codes(layout.interleaved_rows(codes1)),
        scales1=layout.tiled_scales(layout.interleaved_rows(scales1)),
        w2=layout.tiled_codes(codes2),
        scales2=layout.tiled_scales(scales2),
        bias1=bias1,
        bias2=bias2,
    )


def batch(tokens: int) -> tuple[Any, Any, Any]:
    """Activations, shares and experts."""
    make = torch.Generator().manual_seed(tokens)
    x = torch.zeros(tokens, HIDDEN, dtype=torch.bfloat16)
    x[:, :LIVE] = torch.randn(tokens, LIVE, generator=make)
    best = torch.rand(tokens, EXPERTS, generator=make).topk(TOP_K, -1)
    return x.cuda(), best.values.softmax(-1).cuda(), best.indices.int().cuda()


def expected(layer: Any, x: Any, shares: Any, ids: Any) -> Any:
    """The same in float32 by plain products."""
    (_, _, w1), (_, _, w2), bias1, bias2 = layer
    out = torch.zeros(x.shape, device="cuda")
    for expert in range(EXPERTS):
        tokens, slots = (ids == expert).nonzero(as_tuple=True)
        wide = x[tokens].float() @ w1[expert].T + bias1[expert]
        gate, up = wide[:, :INTER].clamp(max=7), wide[:, INTER:].clamp(-7, 7)
        middle = gate * torch.sigmoid(1.702 * gate) * (up + 1)
        out.index_add_(
            0, tokens, (middle @ w2[expert].T + bias2[expert]) * shares[tokens, slots, None]
        )
    return out


def answered(layer: Any, tokens: int, pads: tuple[int, int], **more: Any) -> Any:
    from moe_serve_emulation.cuda import experts
    from moe_serve_emulation.skips import KernelConfig

    return experts.fused_moe(
        *_first(layer, tokens), hidden_pad=pads[0], intermediate_pad=pads[1],
        config=KernelConfig(), **more,
    )  # fmt: skip


def _first(layer: Any, tokens: int) -> tuple[Any, Any, Any, Any]:
    x, shares, ids = batch(tokens)
    return x, weights_of(layer), shares, ids


@pytest.mark.parametrize("tokens", [1, 7, 64, 600])
def test_mxfp4_kernel_is_near_float32_and_lossless_pads_are_bit_equal(
    layer: Any, tokens: int
) -> None:
    """`aligned` pads change no bit; vLLM's own pads lose 192 neurons and are far off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    wanted = expected(layer, *batch(tokens))
    zero, aligned, upstream = (
        answered(layer, tokens, pads) for pads in ((0, 0), (192, 192), (128, 384))
    )

    def error(out: Any) -> float:
        return float((out.float() - wanted).norm() / wanted.norm())

    assert error(zero) < ERROR
    assert torch.equal(zero, aligned)
    assert error(upstream) > 0.05


def test_plain_bf16_weights_give_the_same_answers_as_their_mxfp4(layer: Any) -> None:
    """Weights of MXFP4 are bf16 numbers: both formats of the kernel compute the same product."""
    from moe_serve_emulation.cuda import experts, layout
    from moe_serve_emulation.skips import KernelConfig

    x, packed, shares, ids = _first(layer, 33)
    (_, _, w1), (_, _, w2), bias1, bias2 = layer
    plain = experts.ExpertWeights(
        w1=layout.interleaved_rows(w1).bfloat16().contiguous(), w2=w2.bfloat16(),
        bias1=bias1, bias2=bias2,
    )  # fmt: skip
    for pads in ((0, 0), (192, 192), (128, 384)):
        both = [
            experts.fused_moe(
                x, weights, shares, ids, hidden_pad=pads[0], intermediate_pad=pads[1],
                config=KernelConfig(),
            ).float()
            for weights in (packed, plain)
        ]  # fmt: skip
        assert float((both[0] - both[1]).norm() / both[0].norm()) < ERROR


def test_a_captured_call_answers_as_an_eager_one(layer: Any) -> None:
    """In a CUDA graph nothing is synchronised, and new inputs are seen at each replay."""
    from moe_serve_emulation.cuda import experts
    from moe_serve_emulation.skips import KernelConfig

    x, weights, shares, ids = _first(layer, 16)
    how = {"hidden_pad": 192, "intermediate_pad": 192, "config": KernelConfig()}
    eager = experts.fused_moe(x, weights, shares, ids, **how)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = experts.fused_moe(x, weights, shares, ids, **how)
    graph.replay()
    assert torch.equal(out, eager)
    x.copy_(batch(16)[0].flip(0))
    graph.replay()
    assert torch.equal(out, experts.fused_moe(x, weights, shares, ids, **how))


def test_every_launch_shape_gives_the_same_product(layer: Any) -> None:
    """The tile shapes that are chosen for speed do not change what is computed."""
    from moe_serve_emulation.cuda.tiles import DECODE, PREFILL

    wanted = expected(layer, *batch(40))
    for tiles in (DECODE, PREFILL, replace(DECODE, swap=not DECODE.swap)):
        got = answered(layer, 40, (0, 0), launch=tiles).float()
        assert float((got - wanted).norm() / wanted.norm()) < ERROR
