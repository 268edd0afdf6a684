"""Print the sizes of the code: `python -m tools.measures`, or `make measures`.

A line of code is a line that holds more than a docstring, a comment or blanks. A function's length
is its lines of code, its signature included. These are figures to look at; no check compares them.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

from tools.errors import ToolError
from tools.git import ROOT, present

TESTS = "tests"
# How many folders deep the table goes: moe_serve/canary/analysis.
DEPTH = 3
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file: its path below the root, its lines of code, and its functions' lengths."""

    path: Path
    lines: int
    functions: tuple[int, ...]

    @property
    def folder(self) -> str:
        """The folder that the table counts this file in."""
        return "/".join(self.path.parent.parts[:DEPTH]) or "."

    @property
    def test(self) -> bool:
        """Whether the file is part of the tests."""
        return self.path.parts[0] == TESTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """Members of one package that import each other, directly or in a circle."""

    package: str
    members: tuple[str, ...]
    packages: bool

    def __str__(self) -> str:
        return f"{self.package}: {' <-> '.join(self.members)}"


def module(root: Path, path: str) -> Module:
    """Measure the Python file `path` below `root`.

    Raises:
        ToolError: it is no valid Python.
    """
    text = (root / path).read_text("utf-8")
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ToolError(f"{path}:{error.lineno}: no valid Python: {error.msg}") from error
    code = _lines_of_code(text, tree)
    functions = tuple(
        len(code & set(range(_first_line(node), (node.end_lineno or 0) + 1)))
        for node in ast.walk(tree)
        if isinstance(node, Function)
    )
    return Module(path=Path(path), lines=len(code), functions=functions)


def _first_line(function: Function) -> int:
    return min([function.lineno, *(each.lineno for each in function.decorator_list)])


def _lines_of_code(text: str, tree: ast.Module) -> set[int]:
    lines = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE
        for number in range(token.start[0], token.end[0] + 1)
    }
    for node in _docstrings(tree):
        lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return lines


def _docstrings(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node):
            yield node.body[0]


def percentile_95(lengths: Iterable[int]) -> int:
    """The smallest length that at least 95 % of the lengths do not exceed; 0 of none.

    Nearest rank, so it is a length that occurs.
    """
    ordered = sorted(lengths)
    rank = -(-95 * len(ordered) // 100)
    return ordered[rank - 1] if ordered else 0


def roots(paths: Iterable[str]) -> dict[str, str]:
    """Every top package outside the tests, and the folder that it is imported from.

    Args:
        paths: Python files below the repository's root.
    """
    packages = {Path(path).parent for path in paths if Path(path).name == "__init__.py"}
    return {
        folder.name: str(folder.parent)
        for folder in sorted(packages)
        if folder.parent not in packages and folder.parts[0] != TESTS
    }


def cycles(root: Path, packages: dict[str, str]) -> list[Cycle]:
    """Every cycle of imports between members of the same package, at every level.

    Args:
        root: the repository's root.
        packages: top packages, and the folder below `root` that each is imported from.
    """
    before = list(sys.path)
    sys.path[:0] = [str(root / folder) for folder in packages.values()]
    try:
        graph = grimp.build_graph(*packages, cache_dir=None) if packages else None
    finally:
        sys.path[:] = before
    if graph is None:
        return []
    return [
        Cycle(
            package=package,
            members=tuple(name.rpartition(".")[2] for name in group),
            packages=any(graph.find_children(name) for name in group),
        )
        for package in sorted(graph.modules)
        if (children := graph.find_children(package))
        for group in _circles(_edges(graph, children))
    ]


def _edges(graph: grimp.ImportGraph, children: set[str]) -> dict[str, set[str]]:
    """Which child imports which other one, by any module below it."""
    edges: dict[str, set[str]] = {child: set() for child in children}
    home = {name: child for child in children for name in {child, *graph.find_descendants(child)}}
    for name, child in home.items():
        for imported in graph.find_modules_directly_imported_by(name):
            if home.get(imported, child) != child:
                edges[child].add(home[imported])
    return edges


def _circles(edges: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of two or more that reach each other, in order."""
    reached = {name: _reached(edges, name) for name in edges}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in edges
        if name in reached[name]
    }
    return sorted(groups)


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    waiting, seen = [start], set[str]()
    while waiting:
        for name in edges[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def wheel_bytes(root: Path) -> int:
    """The size of the newest wheel in `dist`; 0 if there is none."""
    wheels = sorted((root / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    return wheels[-1].stat().st_size if wheels else 0


def table(modules: Iterable[Module]) -> Iterator[str]:
    """Files and lines of code per folder, with a sum per top folder that has several."""
    lines, files = Counter[str](), Counter[str]()
    for each in modules:
        for name in {each.folder, each.folder.partition("/")[0] + " (sum)"}:
            lines[name] += each.lines
            files[name] += 1
    yield f"{'folder':<44}{'files':>7}{'lines of code':>15}"
    for name in sorted(lines):
        top = name.removesuffix(" (sum)")
        if name == top or lines[top] != lines[name]:
            yield f"{name:<44}{files[name]:>7}{lines[name]:>15,}"


def report(root: Path = ROOT) -> Iterator[str]:
    """Every line that `make measures` prints.

    Raises:
        ToolError: `root` is no git repository, or a file is no valid Python.
    """
    paths = present("*.py", root=root)
    modules = [module(root, path) for path in paths]
    product = [each for each in modules if not each.test]
    code = sum(each.lines for each in product)
    tests = sum(each.lines for each in modules if each.test)
    lengths = [length for each in product for length in each.functions]
    yield from table(modules)
    yield ""
    yield f"code: {code:,} lines in {len(product)} modules"
    yield f"tests: {tests:,} lines, {tests / code if code else 0:.2f} per line of code"
    median = statistics.median(lengths) if lengths else 0
    yield (
        f"functions: {len(lengths):,}, median {median:g} lines, "
        f"95th percentile {percentile_95(lengths)} lines"
    )
    found = cycles(root, roots(paths))
    yield from _listed("import cycles of packages", [each for each in found if each.packages])
    yield from _listed("import cycles of modules", [each for each in found if not each.packages])
    size = wheel_bytes(root)
    yield f"wheel: {size:,} bytes" if size else "wheel: 0 bytes (not built: make wheel)"


def _listed(what: str, found: list[Cycle]) -> Iterator[str]:
    yield f"{what}: {len(found)}"
    yield from (f"  {each}" for each in found)


def main() -> int:
    """Print the report; 2 with one line on standard error if it cannot be made."""
    try:
        for line in report():
            print(line)
    except ToolError as error:
        print(f"measures: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
