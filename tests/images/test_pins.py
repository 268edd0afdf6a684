"""The pins: one place, and the Dockerfiles agree with it."""

import pytest

from images import pins

TEXT = pins.PINS.read_text("utf-8")
PINS = pins.load(TEXT)
SERVING = pins.SERVING.read_text("utf-8")
OPS = pins.OPS.read_text("utf-8")
DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_every_default_of_the_dockerfiles_is_the_pin() -> None:
    assert pins.differences(PINS, SERVING, OPS) == []


@pytest.mark.parametrize("name", sorted(pins.serving_defaults(PINS)))
def test_another_default_is_found_and_named(name: str) -> None:
    other = pins.with_defaults(SERVING, {name: "another"})

    found = pins.differences(PINS, other, OPS)

    assert [line.split(",")[0] for line in found] == [f"Dockerfile.rocm: {name}=another"]


def test_a_default_that_is_gone_is_found() -> None:
    without = SERVING.replace("ARG ROCM_VERSION=7.2.3\n", "")

    assert "ROCM_VERSION=(absent)" in pins.differences(PINS, without, OPS)[0]


def test_a_filled_digest_pins_the_base_and_keeps_every_comment() -> None:
    filled = pins.with_digest(TEXT, "v0.32.0", DIGEST)
    read = pins.load(filled)

    assert pins.reference(read, "default").endswith(f":v0.32.0@{DIGEST}")
    assert pins.reference(read, "candidate") == pins.reference(PINS, "candidate")
    assert [line for line in filled.splitlines() if line.lstrip().startswith("#")] == [
        line for line in TEXT.splitlines() if line.lstrip().startswith("#")
    ]
    dockerfile = pins.with_defaults(SERVING, pins.serving_defaults(read))
    assert pins.differences(read, dockerfile, OPS) == []
    assert pins.arguments(dockerfile)["BASE_DIGEST"] == DIGEST


def test_a_digest_can_be_filled_in_again() -> None:
    once = pins.with_digest(TEXT, "v0.32.0", DIGEST)

    again = pins.with_digest(once, "v0.32.0", DIGEST.replace("0", "f"))

    assert DIGEST not in again


@pytest.mark.parametrize(
    ("tag", "digest", "named"),
    [("v9.9.9", DIGEST, "v0.33.0-rocm72"), ("v0.32.0", "sha256:abc", "64 hexadecimal digits")],
)
def test_what_cannot_be_filled_in_is_named(tag: str, digest: str, named: str) -> None:
    with pytest.raises(pins.PinsError, match=named):
        pins.with_digest(TEXT, tag, digest)


def test_no_file_that_repeats_a_pin_is_out_of_date() -> None:
    assert pins.stale(PINS) == {}


def test_another_release_reaches_every_file_that_repeats_it() -> None:
    base = {**PINS["bases"]["default"], "tag": "v9.8.7", "vllm": "9.8.7", "aiter": "5.4.3"}
    other = {**PINS, "bases": {**PINS["bases"], "default": base}}
    changed = {str(path.relative_to(pins.ROOT)): text for path, text in pins.stale(other).items()}

    assert {
        "Dockerfile.rocm",
        "charts/moe-serve/Chart.yaml",
        "charts/moe-serve/values.yaml",
        "charts/moe-serve/README.md.in",
        "deploy/production/moe-serve.yaml",
        "deploy/production/pr42098.yaml",
        "deploy/staging/moe-serve.yaml",
        "deploy/kserve/canary.yaml",
        "images/dev/serving.txt",
    } <= set(changed)
    assert not any("0.32.0" in text for text in changed.values())
    assert '  aiter: "5.4.3"' in changed["charts/moe-serve/values.yaml"]


def test_every_base_has_the_aiter_of_its_vllm_release() -> None:
    for base in PINS["bases"].values():
        assert PINS["aiter_of_vllm"][base["vllm"].rpartition(".")[0]] == base["aiter"]
