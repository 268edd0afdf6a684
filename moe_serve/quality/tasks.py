"""Tasks with exact answers: questions, and how the answer is found in a text."""

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError

_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_MARKED = re.compile(r"####\s*(-?\$?\d[\d,]*(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question; `answer` is in the form that the task's `extract` gives."""

    item_id: str
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Items in the order in which they are asked; `answer_tokens` bounds an answer's length."""

    name: str
    items: tuple[Item, ...]
    extract: Callable[[str], str | None]
    answer_tokens: int

    @property
    def digest(self) -> str:
        """Names questions and answers: stored answers of another task are refused by it."""
        rows = [[item.item_id, item.prompt, item.answer] for item in self.items]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def right(self, item: Item, text: str) -> bool:
        """Whether the text holds the item's answer."""
        return self.extract(text) == item.answer


def number(text: str) -> str | None:
    """The number after `####`, else the last number; `1,234.0` is `1234`. None: there is none."""
    marked = _MARKED.findall(text)
    found: list[str] = marked or _NUMBER.findall(text)
    if not found:
        return None
    plain = found[-1].replace(",", "").replace("$", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def gsm8k(lines: Sequence[str], *, source: str, limit: int | None = None) -> Task:
    """GSM8K's own JSON lines: `question`, and `answer` that ends with `#### 18`.

    Raises:
        UsageError: a line is not of this form, or there are fewer than `limit`.
    """
    items: list[Item] = []
    for at, line in enumerate(lines, start=1):
        if not line.strip() or (limit is not None and len(items) == limit):
            continue
        try:
            row = json.loads(line)
            question, answer = str(row["question"]), _MARKED.search(row["answer"])
        except (ValueError, LookupError, TypeError) as error:
            raise UsageError(f"{source}: line {at}: no `question` and `answer`") from error
        if answer is None:
            raise UsageError(f"{source}: line {at}: its answer does not end with `#### number`")
        items.append(
            Item(
                item_id=f"gsm8k-{at}",
                prompt=f"{question}\nThink step by step, and end with `#### ` and the number.\n",
                answer=number(answer[0]) or "",
            )
        )
    if not items or (limit is not None and len(items) < limit):
        raise UsageError(f"{source}: {len(items)} items, {limit or 1} are needed")
    return Task(name="gsm8k", items=tuple(items), extract=number, answer_tokens=1024)


def arithmetic(count: int, *, seed: int) -> Task:
    """Sums and differences of seeded numbers up to 999, and products with one digit, all different.

    Nothing needs to be written down on the way: larger products would be a task for paper.
    """
    source, found = random.Random(seed), dict[str, int]()
    while len(found) < count:
        kind = source.choice("+-*")
        one, other = source.randint(1, 999), source.randint(*((2, 9) if kind == "*" else (1, 999)))
        value = {"+": one + other, "-": one - other, "*": one * other}[kind]
        found[f"Compute {one} {kind} {other}. End with `#### ` and the number.\n"] = value
    return _task("arithmetic", {prompt: str(value) for prompt, value in found.items()}, number)


def formats(count: int, *, seed: int) -> Task:
    """Seeded lists that are to be written as JSON in another order, all different."""
    source, found = random.Random(seed), dict[str, str]()
    orders: dict[str, Callable[[list[int]], list[int]]] = {
        "in ascending order": sorted,
        "in descending order": lambda values: sorted(values, reverse=True),
        "reversed": lambda values: values[::-1],
    }
    while len(found) < count:
        values = source.sample(range(10, 100), k=source.randint(3, 6))
        order = source.choice(sorted(orders))
        words = ", ".join(map(str, values))
        prompt = f"Write {words} {order} as one JSON list and nothing else.\n"
        found[prompt] = json.dumps(orders[order](values))
    return _task("format", found, _json_list)


def _task(name: str, answers: dict[str, str], extract: Callable[[str], str | None]) -> Task:
    items = tuple(
        Item(item_id=f"{name}-{at}", prompt=prompt, answer=answer)
        for at, (prompt, answer) in enumerate(answers.items())
    )
    return Task(name=name, items=items, extract=extract, answer_tokens=512)


def _json_list(text: str) -> str | None:
    try:
        found = json.loads(text.strip())
    except ValueError:
        return None
    return json.dumps(found) if isinstance(found, list) else None
