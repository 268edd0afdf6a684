"""The learned models' lessons as tokens, with the tokenizer that the servers use."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from moe_serve_emulation.learned.tasks import Lesson, lessons
from moe_serve_emulation.learned.tokenizer import END, PAD, tokenizer
from numpy.typing import NDArray
from torch import Tensor

FREE = -100  # a target where whatever is said does not count
_PARTS = 16
Rows = NDArray[np.int16]


def encoded(taught: Sequence[Lesson]) -> tuple[Rows, Rows]:
    """Tokens [N, T], as long as the longest, and what to say after each of them."""
    encode = tokenizer()
    prompts = [row.ids for row in encode.encode_batch([item.prompt for item in taught])]
    said = [[*row.ids, END] for row in encode.encode_batch([item.said for item in taught])]
    longest = max(len(one) + len(other) for one, other in zip(prompts, said, strict=True))
    tokens = np.full((len(taught), longest), PAD, dtype=np.int16)
    targets = np.full((len(taught), longest), FREE, dtype=np.int16)
    for row, (one, other) in enumerate(zip(prompts, said, strict=True)):
        tokens[row, : len(one) + len(other)] = one + other
        targets[row, len(one) - 1 : len(one) + len(other) - 1] = other
    return tokens, targets


def taught(name: str, items: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets of a task's lessons for training, drawn by as many processes as help.

    The same for a seed, however many processes there are.
    """
    # Threads of the tokenizer in forked processes: one each is enough, and warns of nothing.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with ProcessPoolExecutor(min(_PARTS, os.cpu_count() or 1)) as pool:
        parts = list(pool.map(_part, [(name, items // _PARTS, seed, at) for at in range(_PARTS)]))
    longest = max(tokens.shape[1] for tokens, _ in parts)
    return (
        _joined([tokens for tokens, _ in parts], longest, PAD),
        _joined([targets for _, targets in parts], longest, FREE),
    )


def _part(asked: tuple[str, int, int, int]) -> tuple[Rows, Rows]:
    name, items, seed, at = asked
    return encoded(tuple(lessons(name, "train", items, seed=seed * _PARTS + at)))


def _joined(parts: Sequence[Rows], longest: int, fill: int) -> Tensor:
    wide = [
        np.pad(part, ((0, 0), (0, longest - part.shape[1])), constant_values=fill) for part in parts
    ]
    return torch.from_numpy(np.concatenate(wide))
