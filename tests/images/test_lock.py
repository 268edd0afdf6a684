"""What the small image installs is what the extras ask for, by digest."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "images/ops/requirements.txt").read_text("utf-8")
SERVING = (ROOT / "images/dev/serving.lock.txt").read_text("utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
_OPS = re.search(r"^OPS_EXTRAS := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
assert _OPS
WANTED = _OPS[1].split(",")


def locked(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[.*\])?==([^ ;\\\n]+)", text, re.MULTILINE))


@pytest.mark.parametrize("extra", WANTED)
def test_every_requirement_of_an_extra_is_locked_within_its_range(extra: str) -> None:
    found = locked(LOCK)
    asked = [Requirement(text) for text in EXTRAS[extra]]
    outside = [
        str(one)
        for one in asked
        if one.name != "moe-serve" and not one.specifier.contains(found.get(one.name, "0"))
    ]

    assert asked
    assert outside == []


def test_every_locked_package_of_the_small_image_has_digests() -> None:
    blocks = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]

    assert [block.split("\n")[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_stand_in_base_locks_the_vllm_that_is_asked_for() -> None:
    asked = Requirement((ROOT / "images/dev/serving.txt").read_text("utf-8").splitlines()[-1])

    assert asked.specifier.contains(locked(SERVING)[asked.name])


@pytest.mark.parametrize("text", [LOCK, SERVING])
def test_a_lock_names_no_host(text: str) -> None:
    assert "://" not in text
