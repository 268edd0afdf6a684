"""Programs that the tests run over rendered objects: built once from pinned Go modules."""

import os
from pathlib import Path

from tools.node.binaries import built
from tools.node.layout import Layout


def cache() -> Path:
    """Where they are kept, as `make test-charts` says."""
    return Path(os.environ["MOE_SERVE_CACHE"]).resolve()


def program(name: str) -> str:
    """The path of a program."""
    return str(built(Layout(cache=cache()), name))


def schemas() -> Path:
    """The folder that `tests.charts.schemas` has filled."""
    return cache() / "schemas"
