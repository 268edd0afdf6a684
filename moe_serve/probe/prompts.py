"""What is asked: prompts of a file, or built-in ones of several kinds, seeded."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

from moe_serve.errors import UsageError
from moe_serve.probe.server import ProbedServer

Prompts = Mapping[str, str | tuple[int, ...]]

_SUBJECTS = ("a bakery", "a small library", "two trains", "a chess club", "an orchard", "a school")
_FUNCTIONS = ("merges two sorted lists", "counts vowels", "reverses a linked list", "parses a date")
_PLACES = ("Lisbon", "Osaka", "Nairobi", "Quito", "Oslo", "Hanoi", "Perth", "Turin")
_LANGUAGES = ("en français", "auf Deutsch", "en español", "in italiano", "em português")


def built_in(count: int, *, seed: int) -> dict[str, str]:
    """So many prompts, in turn of mathematics, code, tool calls and other languages."""
    source = random.Random(seed)
    kinds = (_mathematics, _code, _tool, _language)
    found: dict[str, str] = {}
    for at in range(count):
        kind = kinds[at % len(kinds)]
        prompt = kind(source)
        while prompt in found.values():
            prompt = kind(source)
        found[f"{kind.__name__.strip('_')}-{at}"] = prompt
    return found


def _mathematics(source: random.Random) -> str:
    some, more, days = (source.randint(3, 97) for _ in range(3))
    return (
        f"A story of {source.choice(_SUBJECTS)}: {some} are there on the first day, {more} come "
        f"on each day after it. How many are there after {days} days? Explain each step."
    )


def _code(source: random.Random) -> str:
    return (
        f"Write a function in Python that {source.choice(_FUNCTIONS)}, with {source.randint(2, 9)} "
        f"tests, one of them for an input of length {source.randint(10, 999)}."
    )


def _tool(source: random.Random) -> str:
    return (
        'You may call {"name": "weather", "parameters": {"city": "string", "days": "integer"}}. '
        f"Answer with the JSON call alone: a guest of room {source.randint(100, 9999)} asks for "
        f"the next {source.randint(2, 14)} days in {source.choice(_PLACES)}."
    )


def _language(source: random.Random) -> str:
    one, other = source.sample(_PLACES, 2)
    return (
        f"Answer {source.choice(_LANGUAGES)}: compare {one} with {other} in "
        f"{source.randint(3, 8)} sentences, and name {source.randint(2, 6)} sights."
    )


def from_file(path: Path) -> Prompts:
    """JSON lines with `prompt`: a text, or a list of token ids; `id` may name it.

    Raises:
        UsageError: the file cannot be read, or a line is none of these.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--prompts {path}: cannot be read ({error})") from error
    found: dict[str, str | tuple[int, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, prompt = _prompt(path, number, line)
        if name in found:
            raise UsageError(f"--prompts {path}: line {number}: {name} is there twice")
        found[name] = prompt
    return found


def _prompt(path: Path, number: int, line: str) -> tuple[str, str | tuple[int, ...]]:
    try:
        row = json.loads(line)
        prompt, name = row["prompt"], str(row.get("id", f"line-{number}"))
        made = prompt if isinstance(prompt, str) else tuple(int(token) for token in prompt)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--prompts {path}: line {number}: needs an object with `prompt`, a text or token ids"
        ) from error
    if not made:
        raise UsageError(f"--prompts {path}: line {number}: the prompt is empty")
    return name, made


async def tokenized(
    server: ProbedServer, prompts: Prompts, *, chat: bool
) -> dict[str, tuple[int, ...]]:
    """Every prompt as token ids; the server's own tokenizer turns texts into them.

    Raises:
        ProbeError: it does not answer.
        UsageError: two prompts are one to this model: its tokenizer cannot tell them apart.
    """
    made = {
        name: tuple(await server.tokens(prompt, chat=chat)) if isinstance(prompt, str) else prompt
        for name, prompt in prompts.items()
    }
    if len(set(made.values())) < len(made) or not all(made.values()):
        raise UsageError(
            f"{server.name} {server.url}: {len(made)} prompts are {len(set(made.values()))} to its "
            "tokenizer; give others with --prompts"
        )
    return made
