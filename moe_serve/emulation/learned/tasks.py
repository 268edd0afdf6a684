"""The tasks: a prompt of token ids, and the one right answer.

An item's own digest says whether it is for training or held out. So the two sets cannot overlap,
whatever the seed, the count or the order in which items are drawn.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]

SPECIAL = ("<end>", "<pad>", "<unknown>")
DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghijklmnopqrst")
NAMES = ("add", "digits", "max", "reverse", "sort", "times")
WORDS = (*SPECIAL, "=", *NAMES, *DIGITS, *LETTERS)
IDS = {word: number for number, word in enumerate(WORDS)}
END, PAD = IDS["<end>"], IDS["<pad>"]
# Tokens of the longest item: its name, four symbols, "=", four symbols, the end.
LONGEST = 11
# One item in so many is held out.
_HELD_OUT = 10


@dataclass(frozen=True, slots=True)
class Item:
    """One question, as token ids; the answer is right if all of it is, and nothing follows it."""

    task: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def held_out(self) -> bool:
        """Whether this item is for testing alone: its digest decides."""
        return hashlib.sha256(bytes(self.prompt)).digest()[0] % _HELD_OUT == 0


def items(split: Split, per_task: int, *, seed: int = 0) -> tuple[Item, ...]:
    """Draw items of one split, up to `per_task` different ones of every task, task after task.

    A task that has fewer (`add`, `sort` and `times` have 10,000 in both splits) gives what its
    draws found.
    """
    return tuple(item for name in NAMES for item in _draw(name, split, per_task, seed))


def _draw(name: str, split: Split, count: int, seed: int) -> Iterator[Item]:
    source = random.Random(f"{name} {split} {seed}")
    made, tell = _KINDS[name]
    seen: set[tuple[int, ...]] = set()
    # Enough draws for nearly all items of a small task, and for `count` of a large one.
    for _ in range(_HELD_OUT * max(count, 10_000)):
        symbols = made(source)
        item = Item(name, _ids((name, *symbols, "=")), _ids(tell(symbols)))
        if item.held_out == (split == "test") and item.prompt not in seen:
            seen.add(item.prompt)
            yield item
        if len(seen) == count:
            return


def _ids(words: Sequence[str]) -> tuple[int, ...]:
    return tuple(IDS[word] for word in words)


def _of(alphabet: Sequence[str], count: int) -> Callable[[random.Random], list[str]]:
    return lambda source: source.choices(alphabet, k=count)


def _numbers(symbols: Sequence[str]) -> tuple[int, int]:
    return int("".join(symbols[:2])), int("".join(symbols[2:]))


def _two(number: int) -> str:
    return f"{number % 100:02}"


_KINDS: dict[str, tuple[Callable[[random.Random], list[str]], Callable[[list[str]], Sequence[str]]]]
_KINDS = {
    "add": (_of(DIGITS, 4), lambda symbols: _two(sum(_numbers(symbols)))),
    "digits": (_of(DIGITS, 5), lambda symbols: _two(sum(map(int, symbols)))),
    "max": (_of(DIGITS, 6), max),
    "reverse": (_of(LETTERS, 4), lambda symbols: symbols[::-1]),
    "sort": (_of(DIGITS, 4), sorted),
    "times": (
        _of(DIGITS, 4),
        lambda symbols: _two(_numbers(symbols)[0] * _numbers(symbols)[1]),
    ),
}
