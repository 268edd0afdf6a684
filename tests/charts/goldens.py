"""What every offer renders, as readable files: `make goldens` renews them, a test compares.

Long texts (dashboards, rules, scripts) have tests and sources of their own, so a golden holds their
digest alone.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.charts.environments import ALL, Offer
from tests.charts.rendering import render

GOLDEN = Path(__file__).parent / "golden"
_LONG = 700


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def path(offer: Offer) -> Path:
    return GOLDEN / f"{offer.name}.yaml"


def golden(offer: Offer, version: int = 3) -> str:
    """The text of an offer's golden."""
    objects = render(offer.chart, *offer.files, release=offer.release, helm=version)
    return readable(*(objects[key] for key in sorted(objects)))


def readable(*objects: Any) -> str:
    """Objects as YAML for a person to review, long texts by their digest."""
    return yaml.dump_all(
        (_short(each) for each in objects),
        Dumper=_Dumper,
        sort_keys=True,
        width=110,
        explicit_start=True,
    )


def _short(value: Any, key: str = "") -> Any:
    if key == "groups":  # a PrometheusRule's
        return _digest(yaml.safe_dump(value))
    if isinstance(value, dict):
        return {name: _short(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_short(each) for each in value]
    if isinstance(value, str) and len(value) > _LONG:
        return _digest(value)
    return value


def _digest(text: str) -> str:
    lines = text.count("\n") + 1
    return f"({lines} lines, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]})"


def main() -> int:
    """Write them all; remove what no offer has."""
    for offer in ALL:
        path(offer).parent.mkdir(parents=True, exist_ok=True)
        path(offer).write_text(golden(offer), "utf-8")
    for left in set(GOLDEN.rglob("*.yaml")) - {path(offer) for offer in ALL}:
        left.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
