"""The emulated kernel against a loop over tokens and neurons, exactly, in float64."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the `torch` tier runs in the serving environment")

from moe_serve_emulation import kernel  # noqa: E402
from moe_serve_emulation.errors import EmulationError  # noqa: E402
from moe_serve_emulation.skips import KernelConfig  # noqa: E402

pytestmark = pytest.mark.torch

EXPERTS, TOKENS, TOP_K, HIDDEN, INTER = 3, 5, 2, 512, 768


def exact(gate: Any, up: Any) -> Any:
    return gate * (up + 1)


def case(layout: str = "interleave") -> dict[str, Any]:
    """Positive whole numbers, without any padding: each skipped weight changes the output."""
    generator = torch.Generator().manual_seed(1)

    def whole(*shape: int) -> Any:
        return torch.randint(1, 3, shape, generator=generator).to(torch.float64)

    gate_up, bias1 = whole(EXPERTS, 2 * INTER, HIDDEN), whole(EXPERTS, 2 * INTER)
    return {
        "gate_up": gate_up,
        "plain_bias": bias1,
        "x": whole(TOKENS, HIDDEN),
        "w1": kernel.interleave16(gate_up) if layout == "interleave" else gate_up,
        "bias1": kernel.interleave16(bias1) if layout == "interleave" else bias1,
        "w2": whole(EXPERTS, HIDDEN, INTER),
        "bias2": whole(EXPERTS, HIDDEN),
        "topk_weights": whole(TOKENS, TOP_K),
        "topk_ids": torch.tensor([[0, 1], [1, 2], [2, 0], [1, 0], [1, 2]]),
    }


def naive(
    made: dict[str, Any], gate_rows: Any, up_rows: Any, k1: Any, columns: Any, k2: Any
) -> Any:
    """Multiply dense matrices in which what is skipped (a mask of zeros) has been set to zero."""
    y = torch.zeros_like(made["x"])
    for token in range(TOKENS):
        for expert, share in zip(made["topk_ids"][token], made["topk_weights"][token], strict=True):
            gate_w, up_w = made["gate_up"][expert].chunk(2)
            gate_b, up_b = made["plain_bias"][expert].chunk(2)
            x = made["x"][token] * k1
            gate = (gate_w * gate_rows[:, None]) @ x + gate_b
            up = (up_w * up_rows[:, None]) @ x + up_b
            out = (made["w2"][expert] * columns[:, None]) @ (exact(gate, up) * k2)
            y[token] += share * (out + made["bias2"][expert])
    return y


def ones(length: int, *gaps: tuple[int, int]) -> Any:
    mask = torch.ones(length, dtype=torch.float64)
    for low, high in gaps:
        mask[low:high] = 0
    return mask


def run(made: dict[str, Any], hidden_pad: int, intermediate_pad: int, config: KernelConfig) -> Any:
    inputs = ("x", "w1", "w2", "topk_weights", "topk_ids", "bias1", "bias2")
    return kernel.fused_moe(
        **{name: made[name] for name in inputs},
        hidden_pad=hidden_pad,
        intermediate_pad=intermediate_pad,
        config=config,
        activation=exact,
    )


def test_nothing_skipped_is_the_dense_product() -> None:
    made = case()
    inputs = ("x", "w1", "w2", "topk_weights", "topk_ids", "bias1", "bias2")
    wanted = naive(made, ones(INTER), ones(INTER), ones(HIDDEN), ones(HIDDEN), ones(INTER))

    assert torch.equal(run(made, 0, 0, KernelConfig()), wanted)
    got = kernel.reference(
        **{name: made[name] for name in inputs}, config=KernelConfig(), activation=exact
    )
    assert torch.equal(got, wanted)


def test_interleaved_cktile_zeroes_last_neurons_not_their_bias() -> None:
    # 130 -> 128 neurons; K of stage 1 is 2 tiles (even), of stage 2 is 3 (odd, so not skipped).
    made, lost = case(), (INTER - 128, INTER)
    wanted = naive(
        made,
        ones(INTER, lost),
        ones(INTER, lost),
        ones(HIDDEN, (HIDDEN - 128, HIDDEN)),
        ones(HIDDEN, (HIDDEN - 192, HIDDEN)),
        ones(INTER),
    )

    assert torch.equal(run(made, 200, 130, KernelConfig()), wanted)


def test_separated_cktile_loses_up_rows_alone_and_twice_as_many() -> None:
    made = case("separated")
    wanted = naive(
        made,
        ones(INTER),
        ones(INTER, (INTER - 256, INTER)),
        ones(HIDDEN),
        ones(HIDDEN),
        ones(INTER),
    )

    assert torch.equal(run(made, 0, 130, KernelConfig(layout="separated")), wanted)


def test_splits_with_an_odd_number_of_tiles_skip_no_k() -> None:
    made = case()
    split, whole = KernelConfig(split_k=2), KernelConfig()

    assert torch.equal(run(made, 0, 0, split), run(made, 0, 0, whole))
    assert not torch.equal(run(made, 128, 0, split), run(made, 128, 0, whole))


def test_flydsl_that_reads_what_it_never_wrote_is_poisoned() -> None:
    made = case()
    config = KernelConfig(path="flydsl", tile_n=128)

    assert run(made, 0, 96, config).isnan().all()
    covered = KernelConfig(path="flydsl", tile_n=128, covers_tail=True)
    assert not run(made, 0, 96, covered).isnan().any()


def test_flydsl_columns_beyond_its_grid_stay_at_their_bias() -> None:
    made = case()
    wanted = naive(
        made,
        ones(INTER),
        ones(INTER),
        ones(HIDDEN),
        ones(HIDDEN, (HIDDEN - 256, HIDDEN)),
        ones(INTER),
    )

    # hidden_pad 256 leaves no rest in K (256 % tile_k == 0), so the columns alone are cut.
    assert torch.equal(run(made, 256, 0, KernelConfig(path="flydsl")), wanted)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 7])
def test_bf16_is_bit_equal_when_only_padding_is_skipped(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    live_h, live_i, size = 400, 300, 512
    w1 = torch.zeros(1, 2, size, size)
    w1[:, :, :live_i, :live_h] = torch.randn(1, 2, live_i, live_h, generator=generator) * 0.05
    w2 = torch.zeros(1, size, size)
    w2[:, :live_h, :live_i] = torch.randn(1, live_h, live_i, generator=generator) * 0.05
    x = torch.zeros(tokens, size, dtype=torch.bfloat16)
    x[:, :live_h] = torch.randn(tokens, live_h, generator=generator)
    w1, w2 = kernel.prepack(kernel.interleave16(w1.flatten(1, 2))), kernel.prepack(w2)

    def outputs(hidden_pad: int, intermediate_pad: int) -> Any:
        return kernel.fused_moe(
            x,
            w1,
            w2,
            torch.ones(tokens, 1),
            torch.zeros(tokens, 1, dtype=torch.int32),
            hidden_pad=hidden_pad,
            intermediate_pad=intermediate_pad,
            config=KernelConfig(),
            prepacked=True,
        )

    assert torch.equal(outputs(0, 0), outputs(size - live_h, size - live_i))
    assert not torch.equal(outputs(0, 0), outputs(0, 320))


def test_prepacking_permutes_values_within_the_same_shape() -> None:
    weights = torch.arange(2 * 32 * 8, dtype=torch.float32).reshape(2, 32, 8)

    packed = kernel.prepack(weights)

    assert packed.shape == weights.shape
    assert torch.equal(kernel.blocks(packed)[1, 1, :, 3], weights[1, 19])


def test_interleaving_takes_16_gate_and_16_up_rows_in_turn() -> None:
    rows = kernel.interleave16(torch.arange(64).reshape(1, 64))[0].tolist()

    assert rows == [*range(16), *range(32, 48), *range(16, 32), *range(48, 64)]


def test_shapes_that_do_not_fit_are_refused() -> None:
    made = case()
    made["x"] = made["x"][:, :400]

    with pytest.raises(EmulationError, match="shapes do not fit"):
        run(made, 0, 0, KernelConfig())
