"""The contract's answers for GPT-OSS, release by release, as whole tables."""

import pytest

from moe_serve.padding.aiter_eras import aiter_build, ksplit
from moe_serve.padding.contract import Call, PaddingPolicy, assess, choose
from moe_serve.padding.models import BUILT_IN
from moe_serve.padding.shapes import Layout, Pads, Parallelism, Quant, shard
from moe_serve.padding.violations import PaddingRule
from moe_serve.padding.vllm_eras import vllm_build


def call(
    *,
    tp: int = 1,
    ep: bool = False,
    vllm: str = "0.32.0",
    aiter: str | None = "0.1.20.post1",
    quant: Quant = Quant.W4A16,
    model: str = "gpt-oss-120b",
    ksplit: int = 0,
) -> Call:
    dims, build = BUILT_IN[model], vllm_build(vllm)
    align = build.eras[-1].alignment(quant, dims.activation)
    return Call(
        part=shard(dims, Parallelism(tp=tp, ep=ep), align=align),
        vllm=build,
        aiter=aiter_build(aiter),
        quant=quant,
        layout=Layout.SEPARATED if quant is Quant.W4A4 else Layout.INTERLEAVE,
        bias=quant is not Quant.W4A4,
        ksplit=ksplit,
    )


def pads(hidden: int, intermediate: int) -> Pads:
    return Pads(hidden=hidden, intermediate=intermediate)


@pytest.mark.parametrize(
    ("vllm", "by_tp"),
    [
        ("0.21.0", {1: (192, 192), 2: (192, 96), 4: (192, 48), 8: (192, 152)}),
        ("0.22.1", {1: (128, 384), 2: (128, 128), 4: (128, 0), 8: (128, 256)}),
        ("0.23.0", {1: (128, 384), 2: (128, 64), 4: (128, 0), 8: (128, 128)}),
        ("0.32.0", {1: (128, 384), 2: (128, 64), 4: (128, 0), 8: (128, 128)}),
        ("0.33.0", {1: (128, 384), 2: (128, 64), 4: (128, 0), 8: (128, 128)}),
    ],
)
def test_every_era_sends_what_its_source_says(vllm: str, by_tp: dict[int, tuple[int, int]]) -> None:
    sent = {tp: choose(call(tp=tp, vllm=vllm), PaddingPolicy.UPSTREAM) for tp in by_tp}

    assert sent == {tp: pads(*expected) for tp, expected in by_tp.items()}


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_expert_parallel_ranks_send_what_tp_1_sends(tp: int) -> None:
    assert choose(call(tp=tp, ep=True), PaddingPolicy.UPSTREAM) == pads(128, 384)


@pytest.mark.parametrize(
    ("tp", "vllm", "lost", "fraction"),
    [
        (1, "0.22.1", 192, 192 / 2880),
        (1, "0.32.0", 192, 192 / 2880),
        (2, "0.22.1", 32, 32 / 1440),
        (2, "0.32.0", 0, 0.0),
        (4, "0.22.1", 0, 0.0),
        (8, "0.22.1", 104, 104 / 360),
        (8, "0.32.0", 0, 0.0),
    ],
)
def test_neurons_that_upstream_pads_lose(tp: int, vllm: str, lost: int, fraction: float) -> None:
    report = assess(call(tp=tp, vllm=vllm, aiter="0.1.16"), PaddingPolicy.UPSTREAM)

    # vLLM 0.22 sends no gate mode, which AITER 0.1.16 takes for another layout: wrong in itself.
    layout_wrong = vllm == "0.22.1"
    assert (report.lost.stage1_neurons, report.loss_fraction, report.safe) == (
        lost,
        fraction,
        lost == 0 and not layout_wrong,
    )


@pytest.mark.parametrize(
    ("tp", "aiter", "expected"),
    [
        (1, "0.1.16", (192, 192)),
        (2, "0.1.16", (192, 96)),
        (4, "0.1.16", (192, 48)),
        (8, "0.1.16", (192, 152)),
        # FlyDSL takes the pads as sent there, and stage 2 would read what stage 1 never wrote.
        (1, "0.1.15", (192, 128)),
        (1, "0.1.15.post2", (192, 128)),
        (1, "0.1.15.post3", (192, 192)),
        # Each even split would drop 128 hidden columns; a pad below 128 is none to stage 1.
        (1, "0.1.13.post1", (64, 192)),
        (8, "0.1.13.post1", (64, 152)),
    ],
)
def test_aligned_pads(tp: int, aiter: str | None, expected: tuple[int, int]) -> None:
    report = assess(call(tp=tp, aiter=aiter), PaddingPolicy.ALIGNED)

    assert (report.sent, report.safe) == (pads(*expected), True)


@pytest.mark.parametrize("policy", list(PaddingPolicy))
@pytest.mark.parametrize("aiter", ["0.1.12", "0.1.12.post1", "0.1.13", "0.1.13+rocm7.2", None])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_split_k_that_ends_with_gelu_is_unsafe(
    tp: int, aiter: str | None, policy: PaddingPolicy
) -> None:
    """AITER 0.1.12 to 0.1.13 answer wrongly whatever the pads; None is any AITER, these too."""
    report = assess(call(tp=tp, aiter=aiter), policy, max_loss=1.0)

    assert not report.safe
    assert PaddingRule.SPLIT_K_GELU in {violation.rule for violation in report.violations}


@pytest.mark.parametrize(
    ("tp", "expected"), [(1, (192, 192)), (2, (192, 96)), (4, (192, 48)), (8, (192, 152))]
)
def test_aiter_ksplit_1_leaves_no_split_k_row(tp: int, expected: tuple[int, int]) -> None:
    report = assess(call(tp=tp, vllm="0.22.1", aiter="0.1.13", ksplit=1), PaddingPolicy.ALIGNED)

    assert (report.sent, report.safe) == (pads(*expected), True)
    assert {kernel.split_k for kernel in report.call.kernels} == {1}


@pytest.mark.parametrize("aiter", ["0.1.13.post1", "0.1.14", "0.1.20.post1", "0.1.26"])
def test_no_later_aiter_has_the_gelu_fault(aiter: str) -> None:
    rules = {v.rule for v in assess(call(tp=8, aiter=aiter), PaddingPolicy.ZERO).violations}

    assert PaddingRule.SPLIT_K_GELU not in rules


def test_an_unknown_aiter_is_safe_with_ksplit_1_and_pads_for_every_release() -> None:
    report = assess(call(tp=1, aiter=None, ksplit=1), PaddingPolicy.ALIGNED)

    assert (report.sent, report.safe, report.call.verified) == (pads(192, 128), True, False)


def test_aligned_says_why_it_holds_the_hidden_pad_back() -> None:
    report = assess(call(tp=8, vllm="0.22.1", aiter="0.1.13.post1"), PaddingPolicy.ALIGNED)

    assert [violation.rule for violation in report.held_back] == [PaddingRule.SPLIT_K]


@pytest.mark.parametrize("policy", list(PaddingPolicy))
def test_a_wrong_layout_is_unsafe_under_every_policy_and_any_budget(policy: PaddingPolicy) -> None:
    report = assess(call(vllm="0.23.0", aiter="0.1.14"), policy, max_loss=1.0)

    assert not report.safe
    assert PaddingRule.LAYOUT in {violation.rule for violation in report.violations}


@pytest.mark.parametrize(
    ("budget", "safe"), [(0.0, False), (0.066, False), (0.067, True), (1.0, True)]
)
def test_the_loss_budget_accepts_what_it_covers_and_no_more(budget: float, safe: bool) -> None:
    assert assess(call(aiter="0.1.16"), PaddingPolicy.ROUNDED, max_loss=budget).safe is safe


def test_w4a8_has_exact_kernels_that_no_policy_can_spoil() -> None:
    reports = [assess(call(quant=Quant.W4A8), policy) for policy in PaddingPolicy]

    assert {(report.safe, path.bytes_ratio) for report in reports for path in report.paths} == {
        (True, 1.0)
    }


def test_w4a4_with_128_aligned_neurons_cannot_be_made_safe_on_ck_tile() -> None:
    report = assess(call(tp=8, quant=Quant.W4A4), PaddingPolicy.ZERO)

    assert {violation.rule for violation in report.violations} == {PaddingRule.SCALE_GROUPS}


def test_w4a4_is_not_refused_once_aiter_keeps_it_off_ck_tile() -> None:
    report = assess(call(tp=8, quant=Quant.W4A4, aiter="0.1.24.post1"), PaddingPolicy.ALIGNED)

    assert report.safe
    assert {kernel.path.value for kernel in report.call.kernels}.isdisjoint({"cktile"})


def test_split_k_factors_are_those_of_aiter() -> None:
    factors = {
        tp: [ksplit(tokens, call(tp=tp).part) for tokens in (1, 2, 4, 8)] for tp in (1, 2, 4, 8)
    }

    assert factors == {1: [3, 2, 1, 1], 2: [6, 3, 2, 1], 4: [6, 6, 3, 2], 8: [12, 6, 4, 2]}


@pytest.mark.parametrize(
    ("tp", "policy", "ratio"),
    [
        (1, PaddingPolicy.ZERO, 1.138),
        (1, PaddingPolicy.RAW, 1.022),
        (1, PaddingPolicy.UPSTREAM, 0.969),
        (2, PaddingPolicy.RAW, 1.052),
        (2, PaddingPolicy.UPSTREAM, 1.060),
        (4, PaddingPolicy.RAW, 1.082),
        (8, PaddingPolicy.RAW, 1.082),
        (8, PaddingPolicy.ZERO, 1.517),
        (8, PaddingPolicy.ROUNDED, 0.727),
    ],
)
def test_bytes_fetched_against_ideal_in_decode(
    tp: int, policy: PaddingPolicy, ratio: float
) -> None:
    decode = assess(call(tp=tp, aiter="0.1.16"), policy).paths[0]

    assert round(decode.bytes_ratio, 3) == ratio


def test_a_newer_release_than_any_read_is_judged_as_the_newest_and_marked() -> None:
    report = assess(call(vllm="0.40.0", aiter="0.2.0"), PaddingPolicy.ALIGNED)

    assert (report.call.verified, report.sent) == (False, pads(192, 192))


def test_padding_that_holds_no_zeros_is_a_violation() -> None:
    base = call()
    poisoned = Call(part=base.part, vllm=base.vllm, aiter=base.aiter, zero_filled=False)

    assert PaddingRule.PAD_NOT_ZERO in {
        v.rule for v in assess(poisoned, PaddingPolicy.ALIGNED).violations
    }
