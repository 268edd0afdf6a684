"""Places right before and after each write where a test may kill the process."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from moe_serve.errors import UsageError

WRITES = (
    "state",
    "route.create",
    "route.weights",
    "events",
    "notified",
    "lease",
    "audit",
    "webhook",
)
NAMES = tuple(f"{write}.{side}" for write in WRITES for side in ("before", "after"))


@dataclass(slots=True)
class Failpoint:
    """Kills hard at the nth passage of one place; without a name, never."""

    name: str = ""
    passages: int = 1
    kill: Callable[[], None] = lambda: os._exit(137)

    def __call__(self, name: str) -> None:
        """Pass a place."""
        if name != self.name:
            return
        self.passages -= 1
        if self.passages == 0:
            self.kill()


def parse(text: str) -> Failpoint:
    """The failpoint in `NAME` or `NAME:N`; none in an empty text.

    Raises:
        UsageError: there is no such place.
    """
    name, _, passages = text.partition(":")
    if not text:
        return Failpoint()
    if name not in NAMES or not (passages or "1").isdecimal():
        raise UsageError(f"MOE_SERVE_FAILPOINT {text!r}: NAME or NAME:N of {', '.join(NAMES)}")
    return Failpoint(name=name, passages=int(passages or 1))
