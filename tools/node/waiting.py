"""Waiting for a fact, with an end."""

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import NodeError

T = TypeVar("T")


def wait(fact: Callable[[], T | None], what: str, *, seconds: float = 60, every: float = 0.1) -> T:
    """The first answer of `fact` that is true.

    Raises:
        NodeError: none came in time; `what` says what was waited for.
    """
    end = time.monotonic() + seconds
    while not (answer := fact()):
        if time.monotonic() > end:
            raise NodeError(f"{what}: not there after {seconds:.0f} s")
        time.sleep(every)
    return answer
