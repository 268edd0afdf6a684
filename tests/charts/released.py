"""The pods that the last released chart made: a newer one with the same values must make the same.

python -m tests.charts.released              while the version is unreleased: record its pods anew
python -m tests.charts.released --release    the chart's new version is released: record its pods

A record is the values as they were, and the pod templates that they gave. All pin every image in
the pod, since the chart's defaults are others at each release. No release precedes 0.1.0, so until
the next version the record is 0.1.0's own.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.charts.environments import ALL, Offer
from tests.charts.goldens import readable
from tests.charts.rendering import CHARTS, ROOT, render

RECORD = Path(__file__).with_name("released")
CHANGES = ROOT / "CHANGELOG.md"
NAMES = (
    "production/moe-serve",
    "local/moe-serve",
    "everything/moe-serve",
    "everything/moe-serve-claims",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One recorded pod: its values, the last wins, and its template as YAML."""

    name: str
    values: tuple[dict[str, Any], ...]
    template: str


def chart_version() -> str:
    """The version in this chart's Chart.yaml."""
    found: str = yaml.safe_load((CHARTS / "moe-serve" / "Chart.yaml").read_text("utf-8"))["version"]
    return found


def recorded() -> tuple[str, tuple[Pod, ...]]:
    """The released version, and its pods."""
    version = (RECORD / "VERSION").read_text("utf-8").strip()
    return version, tuple(_read(path) for path in sorted(RECORD.rglob("*.yaml")))


def template(values: tuple[dict[str, Any], ...]) -> str:
    """The pod that this chart makes of those values."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, each in enumerate(values):
            files.append(Path(folder, f"{number}.yaml"))
            files[-1].write_text(yaml.safe_dump(each), "utf-8")
        return readable(render("moe-serve", *files).pod)


def may_restart(before: str, after: str) -> bool:
    """Whether a version says that pods start anew: another major, before 1.0 another minor."""
    old, new = (tuple(int(part) for part in each.split(".")[:2]) for each in (before, after))
    return old[0] != new[0] or (old[0] == 0 and old != new)


def refused(changes: str, before: str, now: str, *, release: bool) -> str | None:
    """Why the record must stay as it is; None: it may be written."""
    if before != now:
        return None if release else f"on record are {before}'s pods, which {now} is compared with"
    heading = re.search(rf"^## {re.escape(now)} - (.+)$", changes, re.MULTILINE)
    if heading and heading[1] != "unreleased":
        return f"{now} is released, and its pods are on record; raise the version in Chart.yaml"
    return None


def _pods() -> Iterator[tuple[Offer, Pod]]:
    for offer in ALL:
        if offer.name in NAMES:
            values = tuple(yaml.safe_load((ROOT / file).read_text("utf-8")) for file in offer.files)
            yield offer, Pod(name=offer.name, values=values, template=template(values))


def _read(path: Path) -> Pod:
    values, pod = yaml.safe_load_all(path.read_text("utf-8"))
    return Pod(
        name=str(path.relative_to(RECORD).with_suffix("")),
        values=tuple(values["values"]),
        template=readable(pod),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", action="store_true", help="a new version is released")
    args = parser.parse_args()
    before = (RECORD / "VERSION").read_text("utf-8").strip() if RECORD.exists() else chart_version()
    why = refused(CHANGES.read_text("utf-8"), before, chart_version(), release=args.release)
    if why:
        sys.stdout.write(f"kept: {why}\n")
        return 0
    for _, pod in _pods():
        path = RECORD / f"{pod.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = yaml.safe_dump({"values": list(pod.values)}, width=110)
        path.write_text(f"---\n{values}{pod.template}", "utf-8")
    (RECORD / "VERSION").write_text(f"{chart_version()}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
