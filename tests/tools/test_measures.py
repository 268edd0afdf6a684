"""What `make measures` counts."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools import measures
from tools.errors import ToolError

MODULE = '''\
"""A docstring
of two lines."""

# a comment
import os  # code, and a comment

TEXT = """one
two
"""


@decorated
def outer(first: int,
          second: int) -> int:
    """One line."""

    def inner() -> int:
        # why
        return 1

    return inner()


class Thing:
    """A class."""

    async def method(self) -> None:
        """Nothing but this."""
'''


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """A git repository with these files, none of them committed."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def test_docstrings_comments_and_blanks_are_no_lines_of_code(tmp_path: Path) -> None:
    root = repository(tmp_path, {"box/module.py": MODULE})

    found = measures.module(root, "box/module.py")

    # import, TEXT (3), decorator, signature (2), inner (2), return, class, method.
    assert (found.lines, found.folder, found.test) == (12, "box", False)
    # outer with its decorator and inner; inner; method's signature alone.
    assert sorted(found.functions) == [1, 2, 6]


def test_a_file_that_is_no_python_is_named_with_its_line(tmp_path: Path) -> None:
    root = repository(tmp_path, {"wrong.py": "x = 1\ny = = 2\n"})

    with pytest.raises(ToolError, match=r"^wrong\.py:2: no valid Python: "):
        measures.module(root, "wrong.py")


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([], 0), ([7], 7), (range(1, 101), 95), (range(1, 20), 19), ([1] * 95 + [9] * 5, 1)],
)
def test_the_percentile_is_a_length_that_occurs(lengths: list[int], expected: int) -> None:
    assert measures.percentile_95(lengths) == expected


def test_top_packages_are_found_wherever_they_are_but_in_tests() -> None:
    paths = [
        *("alone/script.py", "product/__init__.py", "product/part/__init__.py"),
        *("outside/other/__init__.py", "outside/other/module.py", "tests/__init__.py"),
    ]

    assert measures.roots(paths) == {"product": ".", "other": "outside"}


def test_cycles_are_found_at_every_level_and_across_folders(tmp_path: Path) -> None:
    root = repository(
        tmp_path,
        {
            "cyclic_a/__init__.py": "",
            # one -> two -> three -> one, by modules below them; four only imports
            "cyclic_a/one/__init__.py": "",
            "cyclic_a/one/x.py": "from cyclic_a.two import y\n",
            "cyclic_a/two/__init__.py": "",
            "cyclic_a/two/y.py": "def late():\n    from cyclic_a import three\n",
            "cyclic_a/three.py": "import cyclic_a.one.x\n",
            "cyclic_a/four.py": "import cyclic_a.three\n",
            "folder/cyclic_b/__init__.py": "",
            "folder/cyclic_b/left.py": "from cyclic_b import right\n",
            "folder/cyclic_b/right.py": "from cyclic_b import left\n",
            "folder/cyclic_b/end.py": "import cyclic_a.four\n",
        },
    )

    found = measures.cycles(root, {"cyclic_a": ".", "cyclic_b": "folder"})

    assert found == [
        measures.Cycle(package="cyclic_a", members=("one", "three", "two"), packages=True),
        measures.Cycle(package="cyclic_b", members=("left", "right"), packages=False),
    ]
    assert str(found[1]) == "cyclic_b: left <-> right"


def test_the_report_has_every_figure(tmp_path: Path) -> None:
    root = repository(
        tmp_path,
        {
            "measured/__init__.py": "X = 1\n",
            "measured/sub/__init__.py": "def f():\n    return 1\n",
            "tests/test_it.py": "Y = 1\nZ = 2\n",
            "ignored.txt": "no code\n",
        },
    )

    lines = list(measures.report(root))

    assert [line.split() for line in lines[1:5]] == [
        ["measured", "1", "1"],
        ["measured", "(sum)", "2", "3"],
        ["measured/sub", "1", "2"],
        ["tests", "1", "2"],
    ]
    assert lines[-6:] == [
        "code: 3 lines in 2 modules",
        "tests: 2 lines, 0.67 per line of code",
        "functions: 1, median 2 lines, 95th percentile 2 lines",
        "import cycles of packages: 0",
        "import cycles of modules: 0",
        "wheel: 0 bytes (not built: make wheel)",
    ]


def test_the_newest_wheel_is_measured(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/it-1.whl").write_bytes(b"12345")

    assert measures.wheel_bytes(tmp_path) == 5


def test_a_folder_without_git_is_refused_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measures, "report", lambda: iter(measures.present(root=tmp_path)))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert measures.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("measures: git ls-files")
    assert "not a git repository" in said
    assert len(said.splitlines()) == 1
