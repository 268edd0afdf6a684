"""Versions by PEP 440: the same texts, the same order as `packaging`; builds as their releases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import InvalidVersion
from packaging.version import Version as Reference

from moe_serve.errors import UsageError
from moe_serve.padding.aiter_eras import EVERY, aiter_build
from moe_serve.padding.builds import Build
from moe_serve.padding.versions import Version, parse_version
from moe_serve.padding.vllm_eras import vllm_build

# As real installs have them.
REAL = [
    "0.1.1.dev50+g6214264b1", "0.1.1.dev1+gb4d9154d1.d20260923",
    "0.1.14rc1.dev264+g2e93b80ab.d20260611", "0.1.10.post4.dev14+g54974b315",
    "0.1.20+rocm10.1.0a20260819.3135022", "0.1.23+rocm7.2.3.76cd9af.d20260914",
    "0.1.12.post1+rocm7.2.1", "0.1.13-rc5", "v0.1.24.post1", "0.1.0rc1", "0.1.7.post2.dev18",
    "0.22.1rc1.dev491+g1033ffac2", "0.21.1rc1.dev339", "v0.30.1rc1.dev301+g3a2bf16da",
    "0.28.1rc1.dev681+ge7edf17ce.xpu", "0.19.1rc1.dev329+gc0ba4f5ba.precompiled",
    "0.26.0+rhaiv.5", "0.1.0rc2.dev9+g9255fd9fb9.rocm100", "0.33.0", "0.34.0",
    "0.33.1rc1.dev20+gabcdef0", "0.9.2.dev364+gb432b7a28.rocm700",
]  # fmt: skip
NONE = ["abc1234", "dev", "0.33.0-rocm72", "", "main", "0.1.x", "0.1.13 ; rm", "1.2+", "1..2"]


def ours(text: str) -> Version:
    return parse_version(text, what="test")


@st.composite
def versions(draw: st.DrawFn) -> str:
    """Texts that are versions, in every spelling that the specification allows."""
    number = st.integers(0, 30).map(str)
    separator = st.sampled_from(["", ".", "-", "_"])
    parts = [draw(st.sampled_from(["", "v", "V", " "]))]
    parts.append(draw(st.sampled_from(["", "", "1!", "0!"])))
    parts.append(".".join(draw(st.lists(number, min_size=1, max_size=4))))
    names = ["a", "b", "c", "rc", "alpha", "beta", "pre", "preview", "RC"]
    for group in (names, ["post", "rev", "r", "POST"], ["dev", "DEV"]):
        if draw(st.booleans()):
            word = draw(st.sampled_from(group))
            parts += [draw(separator), word, draw(separator), draw(number)]
    if draw(st.booleans()):
        words = st.sampled_from(["g1033ffac2", "rocm7", "7", "007", "d20260914", "A"])
        parts.append(
            "+"
            + draw(st.sampled_from([".", "-", "_"])).join(
                draw(st.lists(words, min_size=1, max_size=3))
            )
        )
    return "".join(parts)


@settings(max_examples=300, deadline=None)
@given(versions(), versions())
def test_order_is_that_of_packaging(one: str, two: str) -> None:
    theirs = Reference(one), Reference(two)

    assert (ours(one) < ours(two)) == (theirs[0] < theirs[1])
    assert (ours(one) == ours(two)) == (theirs[0] == theirs[1])
    assert (ours(one).public < ours(two).public) == (
        Reference(theirs[0].public) < Reference(theirs[1].public)
    )


@settings(max_examples=400, deadline=None)
@given(st.one_of(versions(), st.text(alphabet="0123456789.-_+!abcdevrcpost ", max_size=24)))
def test_what_is_a_version_is_one_for_packaging_too(text: str) -> None:
    try:
        reference = Reference(text)
    except InvalidVersion:
        with pytest.raises(UsageError, match="test"):
            ours(text)
        return
    found = ours(text)
    assert found.release == reference.release
    assert (found.pre, found.post, found.dev) == (reference.pre, reference.post, reference.dev)
    assert found.candidate == reference.is_prerelease


def test_real_versions_sort_as_packaging_sorts_them() -> None:
    assert sorted(REAL, key=ours) == sorted(REAL, key=Reference)


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_version_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(UsageError, match="--aiter"):
        aiter_build(text)


def test_a_number_that_is_too_long_is_one_short_line() -> None:
    with pytest.raises(UsageError) as refused:
        parse_version("1." * 5000, what="--vllm")

    assert len(str(refused.value)) < 400


def names(build: Build[object]) -> list[str]:
    return [era.text for era in build.eras]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "judged_as"),
    [
        ("0.1.20+rocm10.1.0a20260819.3135022", None),
        ("0.1.12.post1+rocm7.2.1", None),
        ("0.1.13-rc5", ["0.1.12", "0.1.13"]),
        ("0.1.14rc1.dev264+g2e93b80ab.d20260611", ["0.1.13.post1", "0.1.14", "0.1.15"]),
        ("0.1.15.post3.dev2+gabc", ["0.1.15", "0.1.15.post3", "0.1.16"]),
    ],
)
def test_an_aiter_build_counts_as_the_releases_around_it(
    text: str, judged_as: list[str] | None
) -> None:
    build = aiter_build(text)

    assert (names(build), build.verified) == (judged_as or [text], judged_as is None)


@pytest.mark.parametrize(
    "text",
    [
        "unknown", "nightly", "0.1.1.dev50+g6214264b1", "0.1.1.dev1+gb4d9154d1.d20260923",
        "0.1.10.post4.dev14+g54974b315", "0.1.7.post2.dev18",
    ],
)  # fmt: skip
def test_an_untagged_build_may_be_any_release(text: str) -> None:
    build = aiter_build(text)

    assert build.eras == EVERY
    assert not build.verified


@pytest.mark.parametrize("text", ["0.1.23+rocm7.2.3.76cd9af.d20260914", "v0.1.24.post1", "0.2.0"])
def test_a_release_that_was_not_read_is_judged_by_its_place_and_unverified(text: str) -> None:
    build = aiter_build(text)

    assert (len(build.eras), build.verified) == (1, False)
    assert "newer than 0.1.20.post1" in (build.unverified or "")


@pytest.mark.parametrize(
    ("text", "judged_as"),
    [
        ("0.33.0", None),
        ("0.26.0+rhaiv.5", None),
        ("0.22.1rc1.dev491+g1033ffac2", ["0.22.0", "0.22.1", "0.23.0"]),
        ("0.21.1rc1.dev339", ["0.21.0", "0.21.1", "0.22.0"]),
        ("0.33.1rc1.dev20+gabcdef0", ["0.33.0", "0.33.1", "0.34.0"]),
        ("0.24.0rc1", ["0.23.0", "0.24.0"]),
    ],
)
def test_a_vllm_build_counts_as_the_releases_around_it(
    text: str, judged_as: list[str] | None
) -> None:
    build = vllm_build(text)

    assert (names(build), build.verified) == (judged_as or [text], judged_as is None)


@pytest.mark.parametrize(
    "text",
    [
        "nightly-9e57de7197f234f9d9187715d96e07e007048c0f", "0.1.0rc2.dev9+g9255fd9fb9.rocm100",
        "0.19.1rc1.dev329+gc0ba4f5ba.precompiled", "0.9.2.dev364+gb432b7a28.rocm700",
    ],
)  # fmt: skip
def test_a_vllm_that_may_be_any_release_has_all_of_them(text: str) -> None:
    build = vllm_build(text)

    assert (names(build)[0], names(build)[-1], build.verified) == ("0.21.0", "0.33.0", False)


@pytest.mark.parametrize(("build", "text"), [(vllm_build, "0.20.2"), (aiter_build, "0.1.0rc1")])
def test_an_older_release_is_refused(build: object, text: str) -> None:
    with pytest.raises(UsageError, match="older than"):
        build(text)  # type: ignore[operator]
