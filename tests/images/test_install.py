"""What runs in the build of the serving image: it refuses what it must."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SERVING = Path(__file__).parents[2] / "images/serving"
BASE = """BASE_IMAGE: rocm/dev-ubuntu-22.04:7.2.3-complete
TRITON_BRANCH: 669b31a
TRITON_REPO: https://github.com/ROCm/triton.git
PYTORCH_BRANCH: 733fca1
AITER_BRANCH: v0.1.24.post1
"""
FOUND = {
    "vllm": "0.32.0",
    "rocm": "7.2.3",
    "torch": "733fca1",
    "triton": "669b31a",
    "aiter": "0.1.24.post1",
}


def program(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SERVING))
    spec = importlib.util.spec_from_file_location(name, SERVING / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield program("install", monkeypatch)
    sys.modules.pop("software", None)


def test_the_bases_own_file_says_what_the_labels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    software = program("software", monkeypatch)

    assert software.software({"vllm": "0.32.0+rocm723"}, BASE) == FOUND


def test_what_a_base_does_not_hold_is_called_none(monkeypatch: pytest.MonkeyPatch) -> None:
    software = program("software", monkeypatch)

    assert set(software.software({}, "").values()) == {"none"}


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_label_that_the_base_belies_ends_the_build(install: Any, name: str) -> None:
    with pytest.raises(SystemExit, match=f"{name.upper()}_VERSION=9.9.9, the base has"):
        install.require_labels({**FOUND, name: "9.9.9"}, FOUND)


def test_labels_that_agree_pass(install: Any) -> None:
    install.require_labels(FOUND, FOUND)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"torch": "2.12", "moe-serve": "0.1.0"}, "torch 2.13 -> 2.12"),
        ({"moe-serve": "0.1.0"}, "torch 2.13 -> absent"),
        ({"torch": "2.13", "numpy": "2", "moe-serve": "0.1.0"}, "numpy absent -> 2"),
    ],
)
def test_any_other_package_that_changed_ends_the_build(
    install: Any, after: dict[str, str], said: str
) -> None:
    with pytest.raises(SystemExit, match=said):
        install.require_unchanged({"torch": "2.13"}, after, {"moe-serve"})


def test_ours_may_come(install: Any) -> None:
    install.require_unchanged(
        {"torch": "2.13"}, {"torch": "2.13", "moe-serve": "0.1.0"}, {"moe-serve"}
    )


def test_a_vocabulary_with_another_digest_ends_the_build(
    install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "VOCABULARY", tmp_path / "baked")
    (tmp_path / "o200k_base.tiktoken").write_bytes(b"words")

    with pytest.raises(SystemExit, match="sha256"):
        install.bake_vocabulary(tmp_path / "o200k_base.tiktoken", "0" * 64, "o200k_base")

    assert list((tmp_path / "baked").iterdir()) == []


def test_the_right_vocabulary_is_baked_and_readable(
    install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "VOCABULARY", tmp_path / "baked")
    (tmp_path / "o200k_base.tiktoken").write_bytes(b"words")

    digest = hashlib.sha256(b"words").hexdigest()
    install.bake_vocabulary(tmp_path / "o200k_base.tiktoken", digest, "o200k_base")

    baked = tmp_path / "baked/o200k_base.tiktoken"
    assert (baked.read_bytes(), baked.stat().st_mode & 0o777) == (b"words", 0o644)


@pytest.mark.parametrize(("there", "state"), [(True, "absent"), (False, "o200k_base")])
def test_a_label_that_the_vocabulary_belies_ends_the_build(
    install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool, state: str
) -> None:
    monkeypatch.setattr(install, "VOCABULARY", tmp_path / "baked")
    if there:
        (tmp_path / "o200k_base.tiktoken").write_bytes(b"words")

    with pytest.raises(SystemExit, match=f"VOCABULARY_STATE={state}"):
        install.bake_vocabulary(tmp_path / "o200k_base.tiktoken", "0" * 64, state)


@pytest.mark.parametrize("names", [[], ["moe_serve-1.whl", "moe_serve-2.whl"]])
def test_no_wheel_or_two_end_the_build(install: Any, tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()

    with pytest.raises(SystemExit, match="exactly one"):
        install.only(tmp_path, "moe_serve-*.whl")
