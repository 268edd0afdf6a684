"""The literal rules of the kernels, by the numbers that were read off their sources."""

import pytest
from moe_serve_emulation.errors import EmulationError
from moe_serve_emulation.skips import KernelConfig, reads

GPT_OSS = {"hidden": 3072, "inter": 3072}


def test_cktile_with_gpt_oss_true_pads_reads_every_live_weight() -> None:
    plan = reads(**GPT_OSS, hidden_pad=192, intermediate_pad=192, config=KernelConfig())

    assert (plan.rows, plan.k1) == (((0, 2 * 2880),), ((0, 2944),))
    assert (plan.columns, plan.k2, plan.written) == (2880, ((0, 2944),), 3072)


def test_cktile_cuts_k_in_the_last_tile_alone() -> None:
    plan = reads(**GPT_OSS, hidden_pad=128, intermediate_pad=384, config=KernelConfig())

    assert plan.rows == ((0, 2 * 2688),)
    assert plan.k2 == ((0, 3072 - 256),)


def test_cktile_ignores_k_when_the_number_of_tiles_is_odd() -> None:
    plan = reads(hidden=768, inter=768, hidden_pad=128, intermediate_pad=128, config=KernelConfig())

    assert (plan.k1, plan.k2) == (((0, 768),), ((0, 768),))
    assert (plan.rows, plan.columns) == (((0, 2 * 640),), 640)


def test_each_split_of_cktile_drops_the_tail_of_its_own_range() -> None:
    plan = reads(**GPT_OSS, hidden_pad=128, intermediate_pad=0, config=KernelConfig(split_k=3))

    assert plan.k1 == ((0, 896), (1024, 1920), (2048, 2944))


@pytest.mark.parametrize(
    ("pads", "ratio"), [((0, 0), 1.0), ((192, 192), 1.113), ((128, 384), 1.174)]
)
def test_bytes_read_follow_from_the_rules(pads: tuple[int, int], ratio: float) -> None:
    config = KernelConfig()
    whole = reads(**GPT_OSS, hidden_pad=0, intermediate_pad=0, config=config)
    plan = reads(**GPT_OSS, hidden_pad=pads[0], intermediate_pad=pads[1], config=config)

    assert whole.weights / plan.weights == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize(
    ("layout", "tile_n", "covers_tail", "written"),
    [
        ("interleave", 256, False, 1536),
        ("interleave", 128, False, 1472),
        ("interleave", 64, True, 1504),
        ("separated", 64, False, 1472),
        ("separated", 256, False, 1536),
    ],
)
def test_flydsl_writes_the_columns_of_its_grid_and_no_more(
    layout: str, tile_n: int, covers_tail: bool, written: int
) -> None:
    config = KernelConfig(
        path="flydsl",
        layout=layout,  # type: ignore[arg-type]  # a literal, spelled out above
        tile_n=tile_n,
        covers_tail=covers_tail,
    )

    plan = reads(hidden=3072, inter=1536, hidden_pad=192, intermediate_pad=96, config=config)

    assert plan.written == written


@pytest.mark.parametrize("path", ["ignores", "flydsl"])
def test_a_path_that_ignores_pads_reads_everything(path: str) -> None:
    config = KernelConfig(path=path, honours_pads=False)  # type: ignore[arg-type]  # as above

    plan = reads(**GPT_OSS, hidden_pad=192, intermediate_pad=384, config=config)

    assert plan.weights == 3 * 3072 * 3072


@pytest.mark.parametrize(
    ("hidden", "inter", "pads", "said"),
    [
        (3072, 384, (0, 0), "multiples of 256"),
        (3000, 3072, (0, 0), "multiples of 256"),
        (3072, 256, (0, 256), "do not fit"),
        (3072, 256, (-1, 0), "do not fit"),
    ],
)
def test_what_the_kernel_cannot_run_is_refused(
    hidden: int, inter: int, pads: tuple[int, int], said: str
) -> None:
    with pytest.raises(EmulationError, match=said):
        reads(
            hidden=hidden,
            inter=inter,
            hidden_pad=pads[0],
            intermediate_pad=pads[1],
            config=KernelConfig(),
        )
