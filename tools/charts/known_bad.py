"""`files/known-bad.json`: what `moe-serve serve` refuses to start, for the chart to refuse before.

The rows and their words are those of `moe_serve.preflight.known_bad`; the template only compares.
"""

import dataclasses
import json

from moe_serve.preflight.known_bad import KNOWN_BAD


def rows() -> str:
    """The file's text."""
    found = [dataclasses.asdict(row) for row in KNOWN_BAD]
    return json.dumps({"rows": found}, indent=1) + "\n"
