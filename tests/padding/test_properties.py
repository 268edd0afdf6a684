"""What must hold of the contract for any dimensions, not only GPT-OSS's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_serve.errors import UsageError
from moe_serve.padding.aiter_eras import aiter_build
from moe_serve.padding.contract import Call, PaddingPolicy, Report, assess
from moe_serve.padding.kernels import skips
from moe_serve.padding.shapes import Activation, Layout, Pads, Quant, Shard, round_up
from moe_serve.padding.vllm_eras import vllm_build

AITERS = [None, "0.1.12", "0.1.13.post1", "0.1.14", "0.1.15", "0.1.15.post3", "0.1.17", "0.1.20"]
AITERS += ["0.1.24.post1"]


@st.composite
def calls(draw: st.DrawFn) -> Call:
    quant = draw(st.sampled_from([Quant.W4A16, Quant.W4A4]))
    layout = Layout.SEPARATED if quant is Quant.W4A4 else draw(st.sampled_from(list(Layout)))
    hidden, width = draw(st.integers(1, 1500)), draw(st.integers(1, 1500))
    align = draw(st.sampled_from([128, 256]))
    experts = draw(st.sampled_from([4, 8, 32, 128]))
    aiter = draw(st.sampled_from(AITERS))
    return Call(
        part=Shard(
            hidden=hidden,
            intermediate=width,
            padded_hidden=round_up(hidden, 256),
            padded_intermediate=round_up(width, align),
            experts=experts,
            top_k=draw(st.integers(1, 4)),
            moe_tp=draw(st.sampled_from([1, 2, 8])),
        ),
        vllm=vllm_build(draw(st.sampled_from(["0.21.0", "0.22.1", "0.24.0", "0.32.0", "0.33.0"]))),
        aiter=aiter_build(aiter),
        quant=quant,
        layout=layout,
        activation=draw(st.sampled_from([Activation.SWIGLUOAI, Activation.SILU])),
        bias=draw(st.sampled_from([True, False, None])),
        ksplit=draw(st.sampled_from([0, 0, 1, 2, 3])),
    )


def broken(report: Report) -> set[str]:
    return {violation.rule.value for violation in report.violations}


@settings(max_examples=150, deadline=None)
@given(calls())
def test_aligned_breaks_no_rule_that_sending_nothing_would_not_break(case: Call) -> None:
    assert broken(assess(case, PaddingPolicy.ALIGNED)) == broken(assess(case, PaddingPolicy.ZERO))


@settings(max_examples=60, deadline=None)
@given(calls(), st.data())
def test_aligned_is_maximal(case: Call, data: st.DataObject) -> None:
    best = assess(case, PaddingPolicy.ALIGNED)
    other = Pads(
        hidden=data.draw(st.integers(0, case.part.padded_hidden)),
        intermediate=data.draw(st.integers(0, case.part.padded_intermediate)),
    )

    if broken(assess(case, PaddingPolicy.RAW, sent=other)) - broken(best):
        return  # the other pads lose something
    for kernel in case.kernels:
        mine, theirs = (skips(kernel, case.part, sent) for sent in (best.sent, other))
        assert theirs.elements(case.part) >= mine.elements(case.part)


@settings(max_examples=60, deadline=None)
@given(calls())
def test_sanitising_twice_changes_nothing(case: Call) -> None:
    once = assess(case, PaddingPolicy.ALIGNED)

    again = assess(case, PaddingPolicy.ALIGNED, sent=once.sent)

    assert (again.sent, again.violations) == (once.sent, once.violations)


@settings(max_examples=100, deadline=None)
@given(calls(), st.sampled_from(list(PaddingPolicy)))
def test_fetching_less_than_the_live_weights_is_never_called_lossless(
    case: Call, policy: PaddingPolicy
) -> None:
    report = assess(case, policy)

    if any(path.bytes_ratio < 1 for path in report.paths):
        assert not report.lossless


@given(st.integers(-5, -1))
def test_negative_pads_are_refused(size: int) -> None:
    with pytest.raises(UsageError, match=str(size)):
        Pads(hidden=size, intermediate=0)
