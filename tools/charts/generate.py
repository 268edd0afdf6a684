"""Write what the charts have from elsewhere, or check that it is in date.

python -m tools.charts.generate            write it
python -m tools.charts.generate --check    name what is out of date, exit 1
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from moe_serve.config.policy_file import json_schema
from tools.charts.declarations import Undeclared, read
from tools.charts.known_bad import rows
from tools.charts.padding_table import table
from tools.charts.readme import readme
from tools.charts.schema import schema

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
MONITORING = ROOT / "deploy" / "monitoring"


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated file of the charts with the text that it must have."""
    for folder in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        yield from _of_every_chart(folder)
    # Helm cannot read outside a chart, so rules and dashboards are copied into it. Links would do
    # for Helm, but not for everything that fetches a chart from Git.
    files = CHARTS / "moe-serve" / "files"
    yield files / "padding.json", table()
    yield files / "known-bad.json", rows()
    for kind, pattern in (("rules", "*.yaml"), ("dashboards", "*.json")):
        for source in sorted((MONITORING / kind).glob(pattern)):
            yield files / kind / source.name, source.read_text("utf-8")


def _of_every_chart(folder: Path) -> Iterator[tuple[Path, str]]:
    chart = yaml.safe_load((folder / "Chart.yaml").read_text("utf-8"))
    values = read(folder / "values.yaml")
    yield (
        folder / "values.schema.json",
        schema(values, title=f"Values of {chart['name']}", definitions=_definitions(chart["name"])),
    )
    template = folder / "README.md.in"
    if template.exists():
        yield folder / "README.md", readme(template.read_text("utf-8"), values)


def _definitions(chart: str) -> dict[str, Any]:
    """Forms that the package knows better: a policy is refused by Helm as by the judge."""
    if chart != "moe-canary":
        return {}
    policy = json_schema()
    return {"policy": policy, **policy.pop("$defs")}


def _stale() -> Iterator[tuple[Path, str]]:
    for path, text in pages():
        if not path.exists() or path.read_text("utf-8") != text:
            yield path, text


def _left_over() -> Iterator[Path]:
    known = {path for path, _ in pages()}
    for kind in ("rules", "dashboards"):
        yield from set((CHARTS / "moe-serve" / "files" / kind).glob("*")) - known


def main() -> int:
    """Exit 0 if all is written or in date, 1 if something is not."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    try:
        stale, left_over = list(_stale()), list(_left_over())
    except Undeclared as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if args.check:
        for path in [*(path for path, _ in stale), *left_over]:
            sys.stderr.write(f"{path.relative_to(ROOT)}: out of date; run `make charts`\n")
        return 1 if stale or left_over else 0
    for path, text in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")
    for path in left_over:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
