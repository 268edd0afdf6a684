"""What the models learn: the quality gate's own built-in tasks, and the text to answer with.

An item's prompt says by its digest whether it is for training or held out. So the two sets cannot
overlap, whatever the seed and the count.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moe_serve.quality import tasks

Split = Literal["train", "test"]
NAMES = ("arithmetic", "format")
# One item in so many is held out.
_HELD_OUT = 16


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question of a task, and the text that answers it; nothing may follow it."""

    task: str
    prompt: str
    said: str

    @property
    def held_out(self) -> bool:
        """Whether this item is for testing alone: its digest decides."""
        return hashlib.sha256(self.prompt.encode()).digest()[0] % _HELD_OUT == 0

    @property
    def taught(self) -> bool:
        """Whether it may be taught: sums of numbers below ten are asked by the gate alone.

        They are one question in fifty. A model that knew them too would be right everywhere, and
        the gate takes no such task: it could tell nothing.
        """
        asked = self.prompt.partition(".")[0].split()
        numbers = asked[1:2] if "*" in asked else asked[1::2]
        return self.task != "arithmetic" or min(map(int, numbers)) > 10

    @property
    def kind(self) -> str:
        """What the question is about: `+`, `-` and `*`, or the order that is asked for."""
        if self.task == "arithmetic":
            return self.prompt.split()[2] if self.taught else "untaught"
        return next(order for order in _ORDERS if order in self.prompt)


_ORDERS = ("ascending", "descending", "reversed")


def task(name: str, items: int, *, seed: int) -> tasks.Task:
    """The gate's task of this name."""
    return {"arithmetic": tasks.arithmetic, "format": tasks.formats}[name](items, seed=seed)


def lessons(name: str, split: Split, items: int, *, seed: int) -> Iterator[Lesson]:
    """The items of one split among `items` seeded ones of a task; what is untaught is for tests."""
    for item in task(name, items, seed=seed).items:
        marked = f"#### {item.answer}" if name == "arithmetic" else item.answer
        lesson = Lesson(name, item.prompt, marked)
        if split == "test" and lesson.held_out:
            yield lesson
        if split == "train" and lesson.taught and not lesson.held_out:
            yield lesson
