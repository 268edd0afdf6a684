"""The table of what answered wrongly: each row speaks of its combinations, and of no others."""

import dataclasses

import pytest

from moe_serve.padding.shapes import Parallelism
from moe_serve.preflight.known_bad import KNOWN_BAD, KnownBadQuery, check_known_bad, known_bad
from moe_serve.preflight.software import Software

GOOD = KnownBadQuery(
    vllm="0.32.0", aiter="0.1.24.post1", tp=8, gfx="gfx950", aiter_moe=True, gpt_oss=True
)
BROKEN_TP = dataclasses.replace(GOOD, vllm="0.22.1", aiter="0.1.13.post1")
BROKEN_023 = dataclasses.replace(GOOD, vllm="0.23.0", aiter="0.1.13.post1", tp=1)
GELU = dataclasses.replace(GOOD, vllm="0.24.0", aiter="0.1.13")
WRONG_ORDER = dataclasses.replace(GOOD, vllm="0.21.0", aiter="0.1.14", tp=1)


def rows(deployment: KnownBadQuery) -> list[str]:
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
        (dataclasses.replace(WRONG_ORDER, aiter="0.1.14rc1.dev264+g2e9"), "gate-mode-missing"),
        (GELU, "split-k-gelu"),
        (dataclasses.replace(GELU, aiter="0.1.12.post1+rocm7.2.1", tp=1), "split-k-gelu"),
        (dataclasses.replace(GELU, aiter="v0.1.13-rc5"), "split-k-gelu"),
        (dataclasses.replace(GELU, ksplit=2), "split-k-gelu"),
        (dataclasses.replace(GELU, aiter=None), "split-k-gelu"),
        (dataclasses.replace(GELU, aiter="0.1.1.dev50+g6214264b1"), "split-k-gelu"),
        (dataclasses.replace(GELU, aiter="abc1234"), "split-k-gelu"),
    ],
)
def test_each_row_speaks_of_its_combinations(deployment: KnownBadQuery, id: str) -> None:
    assert rows(deployment) == [id]


def test_an_unknown_aiter_matches_every_row_that_needs_its_version() -> None:
    unknown = dataclasses.replace(WRONG_ORDER, aiter=None)

    assert rows(unknown) == ["split-k-gelu", "gate-mode-missing"]


def test_a_development_build_matches_the_rows_of_both_its_neighbours() -> None:
    build = dataclasses.replace(BROKEN_TP, vllm="0.22.1rc1.dev491+g1033ffac2")

    assert rows(build) == ["vllm-0.22-tensor-parallel", "vllm-0.23.0"]


@pytest.mark.parametrize("ksplit", [1, -1])
def test_aiter_ksplit_1_takes_the_gelu_fault_away(ksplit: int) -> None:
    assert rows(dataclasses.replace(GELU, ksplit=ksplit)) == []


@pytest.mark.parametrize("bad", [BROKEN_TP, BROKEN_023, WRONG_ORDER])
@pytest.mark.parametrize(
    "change", [{"gfx": "gfx942"}, {"aiter_moe": False}, {"gpt_oss": False}, {"vllm": "0.24.0"}]
)
def test_no_row_speaks_where_other_kernels_run(
    bad: KnownBadQuery, change: dict[str, object]
) -> None:
    assert rows(dataclasses.replace(bad, **change)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "deployment",
    [
        GOOD,
        dataclasses.replace(GOOD, vllm="0.24.0", aiter="0.1.13.post1"),
        dataclasses.replace(BROKEN_TP, tp=1),
        dataclasses.replace(WRONG_ORDER, aiter="0.1.13.post1"),
        dataclasses.replace(GOOD, vllm=None),
    ],
)
def test_what_nobody_found_wrong_is_in_no_row(deployment: KnownBadQuery) -> None:
    assert rows(deployment) == []


def test_every_row_has_evidence_and_a_way_out_and_an_id_of_its_own() -> None:
    assert all("#" in row.evidence and row.instead and row.what for row in KNOWN_BAD)
    assert len({row.id for row in KNOWN_BAD}) == len(KNOWN_BAD)


@pytest.mark.parametrize(
    ("environment", "aiter", "outcome"),
    [
        ({"MOE_SERVE_EMULATE_AITER": "cktile"}, None, "skip"),
        ({"MOE_SERVE_EMULATE_AITER": "cktile"}, "0.1.16", "ok"),
        ({"MOE_SERVE_EMULATE_AITER": "cktile"}, "0.1.13", "fail"),
        ({"VLLM_ROCM_USE_AITER": "1"}, None, "fail"),
    ],
)
def test_no_release_of_aiter_is_blamed_for_an_emulation_that_is_not_there_yet(
    environment: dict[str, str], aiter: str | None, outcome: str
) -> None:
    """On a node without a GPU an init container brings the emulation after preflight ran."""
    software = Software(vllm="0.32.0", aiter=aiter, plugin=True)

    found = check_known_bad(None, Parallelism(), software, environment, gfx=None)

    assert found.outcome.value.lower() == outcome
