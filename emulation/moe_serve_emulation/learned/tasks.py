"""The lessons of the models: the quality probe's built-in tasks, with the text of each answer.

The digest of an item's prompt decides whether it is for training or held out, so the two sets
never overlap, for any seed and count.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from moe_serve.quality import tasks

Split = Literal["train", "test"]
NAMES = ("arithmetic", "format")
# One item in 16 is held out.
_HELD_OUT = 16


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question of a task, and the whole text of its answer."""

    task: str
    prompt: str
    said: str

    @property
    def held_out(self) -> bool:
        """Whether this item is only for testing, by its digest."""
        return hashlib.sha256(self.prompt.encode()).digest()[0] % _HELD_OUT == 0

    @property
    def taught(self) -> bool:
        """Whether it may be taught: arithmetic on numbers up to ten is left out.

        It is one question in fifty. A model that answers all questions right saturates the task,
        and the probe then decides nothing.
        """
        words = self.prompt.partition(".")[0].split()
        numbers = words[1:2] if "*" in words else words[1::2]
        return self.task != "arithmetic" or min(map(int, numbers)) > 10

    @property
    def kind(self) -> str:
        """The operation (`+`, `-`, `*`, or `untaught`) or the order of the list."""
        if self.task == "arithmetic":
            return self.prompt.split()[2] if self.taught else "untaught"
        return next(order for order in _ORDERS if order in self.prompt)


_ORDERS = ("ascending", "descending", "reversed")


def task(name: str, items: int, *, seed: int) -> tasks.Task:
    """The probe's task with this name."""
    return {"arithmetic": tasks.arithmetic, "format": tasks.formats}[name](items, seed=seed)


def lessons(name: str, split: Split, items: int, *, seed: int) -> Iterator[Lesson]:
    """The lessons of one split among `items` seeded items of a task."""
    for item in task(name, items, seed=seed).items:
        marked = f"#### {item.answer}" if name == "arithmetic" else item.answer
        lesson = Lesson(name, item.prompt, marked)
        if split == "test" and lesson.held_out:
            yield lesson
        if split == "train" and lesson.taught and not lesson.held_out:
            yield lesson
