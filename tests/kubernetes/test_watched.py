"""A collection that is kept in date, over an API server in memory."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from moe_serve.kubernetes.api import ClusterError
from moe_serve.kubernetes.watched import Watched


class Listed:
    """It may be listed and not watched."""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return {"items": [], "metadata": {"resourceVersion": "1"}}

    def watch(self, path: str, seconds: int, **query: str) -> Iterator[dict[str, Any]]:
        raise ClusterError('403 it cannot watch resource "pods"', status=403)


def test_what_may_be_listed_and_not_watched_is_never_in_date() -> None:
    changes: list[bool] = []
    watched = Watched(Listed(), "pods", {}, lambda: changes.append(True))  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match="cannot watch"):
        watched.follow(threading.Event())
    assert changes == []
    with pytest.raises(ClusterError, match="not listed yet"):
        watched.objects()
