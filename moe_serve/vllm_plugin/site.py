"""Read what this site sets of AITER: its own tuned tables, and the switches that choose kernels."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.padding.site_tables import (
    OWN_TABLES,
    TABLES,
    Row,
    SitePaths,
    parse_table,
    switches,
)

_LARGEST_TABLE = 64 * 2**20


def read_site(environment: Mapping[str, str]) -> SitePaths:
    """What the environment makes AITER read; a table that cannot be read makes every path possible.

    AITER reads `AITER_CONFIG_FMOE` as files with `:` between them.
    """
    changed = dict(switches(environment))
    names = [name for name in environment.get(TABLES, "").split(os.pathsep) if name]
    if not changed and not names:
        return OWN_TABLES
    rows: list[Row] = []
    reasons = [
        f"{name}={value} changes which kernels AITER takes" for name, value in changed.items()
    ]
    digests: dict[str, str] = {}
    for name in names:
        try:
            data = _read(name)
            digests[name] = hashlib.sha256(data).hexdigest()
            rows += parse_table(data.decode("utf-8"), source=name)
        except (OSError, UnicodeDecodeError, UsageError) as error:
            reasons.append(f"{TABLES}: {name} cannot be read ({_one_line(error)})")
    content = json.dumps([changed, digests], sort_keys=True)
    return SitePaths(
        rows=tuple(dict.fromkeys(rows)),
        anything="; ".join(reasons) or None,
        digest=hashlib.sha256(content.encode()).hexdigest(),
    )


def _read(name: str) -> bytes:
    path = Path(name)
    if path.stat().st_size > _LARGEST_TABLE:
        raise UsageError(f"{name}: larger than {_LARGEST_TABLE} bytes")
    return path.read_bytes()


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
