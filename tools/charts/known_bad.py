"""`files/known-bad.json`: what `moe-serve serve` refuses to start, for the chart to refuse before.

The rows and their words are those of `moe_serve.preflight.known_bad`; the template compares only
the keys of releases (`charts.padding_table.key`), which sort as releases do.
"""

import dataclasses
import json

from moe_serve.padding.versions import parse_version
from moe_serve.preflight.known_bad import KNOWN_BAD, KnownBad
from tools.charts.padding_table import key

# Before and after the key of every release.
_FIRST, _LAST = "", "~"


def rows() -> str:
    """The file's text."""
    return json.dumps({"rows": [_row(row) for row in KNOWN_BAD]}, indent=1) + "\n"


def _row(row: KnownBad) -> dict[str, object]:
    return {
        **dataclasses.asdict(row),
        "vllm_bound": row.vllm_since is not None or row.vllm_below is not None,
        "vllm_since_key": _key(row.vllm_since, _FIRST),
        "vllm_below_key": _key(row.vllm_below, _LAST),
        "aiter_since_key": _key(row.aiter_since, _FIRST),
        "aiter_below_key": _key(row.aiter_below, _LAST),
    }


def _key(text: str | None, unbound: str) -> str:
    return unbound if text is None else key(parse_version(text, what="known-bad"))
