import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_serve.analysis.series import (
    ArmBlock,
    Cell,
    CellKind,
    CellTotal,
    PairedBlock,
    Placement,
    Void,
    delta,
    paired_block,
    void_reasons,
)
from moe_serve.errors import UsageError
from tests.testing.samples import Snapshot

A = Cell(kind=CellKind.KERNEL, layer=0, bucket=4)
B = Cell(kind=CellKind.STEP, layer=None, bucket=4)
SECONDS = st.floats(0, 1e4) | st.just(float("nan"))
TOTALS = st.dictionaries(
    st.sampled_from((A, B)),
    st.tuples(st.integers(0, 1000), SECONDS),
)


def test_growth_of_both_counters_is_the_block() -> None:
    before = Snapshot(generation=1, totals={A: (10, 1.0)})
    after = Snapshot(generation=1, totals={A: (15, 1.5), B: (3, 0.25)})
    expected = ArmBlock(totals={A: CellTotal(5, 0.5), B: CellTotal(3, 0.25)})
    assert delta(before, after) == expected


@pytest.mark.parametrize(
    ("generation", "totals", "reason"),
    [
        (2, {A: (20, 2.0)}, "restarted"),
        (1, {}, "disappeared"),
        (1, {A: (9, 1.5)}, "backwards"),
        (1, {A: (12, 0.5)}, "backwards"),
        (1, {A: (12, 1.0)}, "together"),
        (1, {A: (12, float("nan"))}, "finite"),
    ],
)
def test_anything_but_growth_voids_the_block(
    generation: int, totals: dict[Cell, tuple[int, float]], reason: str
) -> None:
    before = Snapshot(generation=1, totals={A: (10, 1.0)})
    found = delta(before, Snapshot(generation=generation, totals=totals))
    assert isinstance(found, Void)
    assert reason in found.reason


@given(TOTALS, TOTALS)
def test_a_delta_is_never_negative(
    before: dict[Cell, tuple[int, float]], after: dict[Cell, tuple[int, float]]
) -> None:
    found = delta(Snapshot(generation=1, totals=before), Snapshot(generation=1, totals=after))
    if isinstance(found, ArmBlock):
        assert all(t.count > 0 and t.seconds > 0 for t in found.totals.values())


def test_one_void_arm_voids_the_pair_and_is_named() -> None:
    whole = ArmBlock(totals={A: CellTotal(5, 0.5)})
    block = paired_block(
        index=3, start_seconds=0, placement=Placement.AB, stable=whole, canary=Void("it is gone")
    )
    assert (block.stable, block.canary) == (None, None)
    assert void_reasons([block]) == ("block 3: canary: it is gone",)


def test_a_block_cannot_be_void_and_whole() -> None:
    whole = ArmBlock(totals={})
    for canary, reason in ((whole, "void"), (None, None)):
        with pytest.raises(UsageError, match="block 1"):
            PairedBlock(
                index=1,
                start_seconds=0,
                placement=Placement.AB,
                stable=whole,
                canary=canary,
                void_reason=reason,
            )


def test_a_block_cannot_hold_negative_numbers() -> None:
    with pytest.raises(UsageError, match="cannot hold"):
        ArmBlock(totals={A: CellTotal(-1, 0.5)})
