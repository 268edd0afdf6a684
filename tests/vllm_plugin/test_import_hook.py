"""The hook waits for a module without importing it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from moe_serve.vllm_plugin.import_hook import forget, on_import

NAME = "waited_for_module"


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ModuleType]]:
    (tmp_path / f"{NAME}.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    yield []
    sys.modules.pop(NAME, None)
    sys.meta_path[:] = before


def test_the_callback_runs_after_the_import_and_not_before(seen: list[ModuleType]) -> None:
    on_import(NAME, seen.append)
    assert (seen, NAME in sys.modules) == ([], False)

    module = __import__(NAME)

    assert (seen, module.value) == ([module], 1)
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"


def test_a_module_that_is_there_already_calls_at_once(seen: list[ModuleType]) -> None:
    module = __import__(NAME)

    on_import(NAME, seen.append)

    assert seen == [module]


def test_the_same_callback_again_changes_nothing(seen: list[ModuleType]) -> None:
    callback = seen.append
    on_import(NAME, callback)
    on_import(NAME, callback)

    __import__(NAME)

    assert len(seen) == 1


def test_what_is_forgotten_is_not_called_and_leaves_no_finder(seen: list[ModuleType]) -> None:
    callback = seen.append
    before = list(sys.meta_path)
    on_import(NAME, callback)
    forget(NAME, callback)

    __import__(NAME)

    assert (seen, list(sys.meta_path)) == ([], before)


def test_a_module_that_does_not_exist_stays_missing(seen: list[ModuleType]) -> None:
    on_import("no_such_module_at_all", seen.append)

    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_at_all")

    assert seen == []
