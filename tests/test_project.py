"""Facts that stand in several places agree."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import moe_serve

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_one_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)

    assert newest
    assert {PROJECT["version"], moe_serve.__version__, newest[1]} == {moe_serve.__version__}


def test_nothing_is_required_inside_vllm() -> None:
    assert PROJECT["dependencies"] == []


def test_no_requirement_names_the_foreign_distribution_aiter() -> None:
    texts = [ROOT / "pyproject.toml", *(ROOT / "images").rglob("*.txt")]
    named = re.compile(r"""^\s*["']?aiter\b(?!\.)""", re.MULTILINE)

    assert [path.name for path in texts if named.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("module", ["moe_serve.padding.contract", "moe_serve.vllm_plugin"])
def test_the_part_inside_vllm_imports_with_the_standard_library_alone(module: str) -> None:
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {{'numpy','scipy','httpx','rich','matplotlib','torch','vllm'}}:
            raise ImportError(name)
sys.meta_path.insert(0, Block())
import {module}
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_every_adr_is_listed_once_and_numbers_are_unique() -> None:
    index = (ROOT / "docs/adr/README.md").read_text("utf-8")
    pages = sorted(path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md"))

    assert re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index) == pages
    assert len({page[:4] for page in pages}) == len(pages)


def test_every_link_in_the_documentation_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("images/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_architecture_page_shows_the_layers_that_the_contract_holds() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    layers = next(
        each["layers"] for each in contracts["contracts"] if each["containers"] == ["moe_serve"]
    )
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    picture = page.split("```text\n")[1].split("```")[0].splitlines()

    assert [re.split(r"\s{2,}", line)[0] for line in picture] == layers
