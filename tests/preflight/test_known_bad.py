"""The table of what answered wrongly: each row speaks of its combinations, and of no others."""

import dataclasses

import pytest

from moe_serve.preflight.known_bad import KNOWN_BAD, Deployment, known_bad

GOOD = Deployment(
    vllm="0.32.0", aiter="0.1.24.post1", tp=8, gfx="gfx950", aiter_moe=True, gpt_oss=True
)
BROKEN_TP = dataclasses.replace(GOOD, vllm="0.22.1", aiter="0.1.13")
BROKEN_023 = dataclasses.replace(GOOD, vllm="0.23.0", aiter="0.1.13.post1", tp=1)
WRONG_ORDER = dataclasses.replace(GOOD, vllm="0.21.0", aiter="0.1.14", tp=1)


def rows(deployment: Deployment) -> list[str]:
    return [row.id for row in known_bad(deployment)]


@pytest.mark.parametrize(
    ("deployment", "id"),
    [
        (BROKEN_TP, "vllm-0.22-tensor-parallel"),
        (dataclasses.replace(BROKEN_TP, vllm="0.22.0", tp=2), "vllm-0.22-tensor-parallel"),
        (dataclasses.replace(BROKEN_TP, vllm="0.22.1+rocm722"), "vllm-0.22-tensor-parallel"),
        (dataclasses.replace(BROKEN_TP, gfx=None), "vllm-0.22-tensor-parallel"),
        (BROKEN_023, "vllm-0.23.0"),
        (dataclasses.replace(BROKEN_023, vllm="0.23.1rc1"), "vllm-0.23.0"),
        (WRONG_ORDER, "gate-mode-missing"),
        (dataclasses.replace(WRONG_ORDER, aiter=None), "gate-mode-missing"),
    ],
)
def test_each_row_speaks_of_its_combinations(deployment: Deployment, id: str) -> None:
    assert rows(deployment) == [id]


@pytest.mark.parametrize("bad", [BROKEN_TP, BROKEN_023, WRONG_ORDER])
@pytest.mark.parametrize(
    "change", [{"gfx": "gfx942"}, {"aiter_moe": False}, {"gpt_oss": False}, {"vllm": "0.24.0"}]
)
def test_no_row_speaks_where_other_kernels_run(bad: Deployment, change: dict[str, object]) -> None:
    assert rows(dataclasses.replace(bad, **change)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "deployment",
    [
        GOOD,
        dataclasses.replace(GOOD, vllm="0.24.0", aiter="0.1.13.post1"),
        dataclasses.replace(BROKEN_TP, tp=1),
        dataclasses.replace(WRONG_ORDER, aiter="0.1.13"),
        dataclasses.replace(GOOD, vllm=None),
    ],
)
def test_what_nobody_found_wrong_is_in_no_row(deployment: Deployment) -> None:
    assert rows(deployment) == []


def test_every_row_has_evidence_and_a_way_out_and_an_id_of_its_own() -> None:
    assert all("#" in row.evidence and row.instead and row.what for row in KNOWN_BAD)
    assert len({row.id for row in KNOWN_BAD}) == len(KNOWN_BAD)
