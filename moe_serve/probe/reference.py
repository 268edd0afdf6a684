"""The stored texts that both arms are held against, and their file.

A reference is made once, from a server that is trusted (no skipped padding, eager), and never
again: were it made from what is stable at the time, small losses could add up from one promotion
to the next. Its file is JSON lines: one head, then one text a line.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import ProbeError, UsageError
from moe_serve.probe.server import ProbedServer
from moe_serve.probe.together import together
from moe_serve.quality.divergence import Position, Text

_KIND = "moe-serve quality reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceText:
    """A prompt (token ids), a continuation sampled from the reference and its greedy one."""

    prompt_id: str
    prompt: tuple[int, ...]
    sampled: Text
    greedy: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """All texts; `model` is the served name, `source` says whose they are."""

    source: str
    model: str
    texts: tuple[ReferenceText, ...]

    @property
    def digest(self) -> str:
        """Names the texts: what a verdict was made against."""
        return hashlib.sha256("\n".join(map(_line, self.texts)).encode()).hexdigest()[:16]


async def record(
    server: ProbedServer,
    prompts: Mapping[str, Sequence[int]],
    *,
    source: str,
    sampled_tokens: int,
    greedy_tokens: int,
    concurrency: int = 8,
) -> Reference:
    """Have the server continue every prompt, sampled and greedy.

    Raises:
        ProbeError: it did not, or gave values that are not finite: no reference is made of that.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(number: int, prompt_id: str, prompt: Sequence[int]) -> ReferenceText:
        async with gate:
            sampled = await server.write(prompt, tokens=sampled_tokens, seed=number)
            greedy = await server.write(prompt, tokens=greedy_tokens)
        if not sampled or not greedy or not all(at.finite for at in (*sampled, *greedy)):
            raise ProbeError(f"{server.name} {server.url}: no sound answer to {prompt_id}")
        return ReferenceText(
            prompt_id=prompt_id, prompt=tuple(prompt), sampled=sampled, greedy=greedy
        )

    texts = await together(
        one(number, name, prompt) for number, (name, prompt) in enumerate(prompts.items())
    )
    return Reference(source=source, model=server.model, texts=tuple(texts))


def write(path: Path, reference: Reference) -> None:
    """Write the file; an existing one is never overwritten.

    Raises:
        UsageError: it exists, or cannot be written.
    """
    head = {"kind": _KIND, "source": reference.source, "model": reference.model}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(head) + "\n")
            file.writelines(_line(text) + "\n" for text in reference.texts)
    except FileExistsError as error:
        raise UsageError(f"{path}: exists; a reference is made once, name another file") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def read(path: Path) -> Reference:
    """Read a file that `write` wrote.

    Raises:
        UsageError: it cannot be read, or is no such file; the message names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    try:
        head = json.loads(lines[0])
        if head["kind"] != _KIND:
            raise ValueError
        head = {key: str(head[key]) for key in ("source", "model")}
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{path}: its first line is not that of a {_KIND}") from error
    texts = tuple(_text(path, at, line) for at, line in enumerate(lines[1:], start=2))
    if not texts or len({text.prompt_id for text in texts}) != len(texts):
        raise UsageError(f"{path}: no texts, or one twice")
    return Reference(source=head["source"], model=head["model"], texts=texts)


def _line(text: ReferenceText) -> str:
    return json.dumps(
        {
            "id": text.prompt_id,
            "prompt": text.prompt,
            "sampled": list(map(_from_position, text.sampled)),
            "greedy": list(map(_from_position, text.greedy)),
        }
    )


def _from_position(at: Position) -> list[object]:
    return [at.token, round(at.logprob, 6), {str(k): round(v, 6) for k, v in at.top.items()}]


def _text(path: Path, number: int, line: str) -> ReferenceText:
    try:
        found = json.loads(line)
        made = ReferenceText(
            prompt_id=str(found["id"]),
            prompt=tuple(int(token) for token in found["prompt"]),
            sampled=tuple(map(_to_position, found["sampled"])),
            greedy=tuple(map(_to_position, found["greedy"])),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: line {number} is not a recorded text") from error
    if not (made.prompt and made.sampled and made.greedy):
        raise UsageError(f"{path}: line {number} has no tokens")
    return made


def _to_position(found: Any) -> Position:
    token, logprob, top = found
    best = {int(name): float(value) for name, value in top.items()}
    return Position(int(token), float(logprob), best)
