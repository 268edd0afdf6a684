"""What one round of probes says of each cell, prompt by prompt; and the clusters over all rounds.

A cell is a path (prefill or decode) at a concurrency: each can take another kernel. A prompt is a
cluster: its tokens are no independent evidence, nor is it when a later round asks it again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

from moe_serve.quality.divergence import Text, common, divergence


class ProbePath(StrEnum):
    """Prefill scores a stored text in one pass; decode writes token by token."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, order=True)
class ProbeCell:
    """`prefill at concurrency 4`."""

    path: ProbePath
    concurrency: int

    def __str__(self) -> str:
        return f"{self.path.value} at concurrency {self.concurrency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One prompt in one cell: both arms against the reference.

    `stable` and `canary` are divergences from the reference, means over the tokens, nats a token;
    `top1_drop` is the share of positions where stable's first choice is the reference's, less the
    canary's share.
    """

    prompt_id: str
    stable: float
    canary: float
    top1_drop: float
    tokens: int

    @property
    def excess(self) -> float:
        """How much farther the canary lies from the reference than stable does."""
        return self.canary - self.stable


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRound:
    """One round in one cell: its scores, and what could not be scored.

    `broken` names prompts at which the canary, `stable_broken` those at which stable gave a value
    that is not finite; `missing` says which arm did not answer which prompt.
    """

    cell: ProbeCell
    asked: int
    scores: tuple[Score, ...]
    broken: tuple[str, ...] = ()
    stable_broken: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def cell_round(
    cell: ProbeCell,
    reference: Mapping[str, Text],
    stable: Mapping[str, Text],
    canary: Mapping[str, Text],
) -> CellRound:
    """Score every text of the reference; what an arm lacks or broke is named, never dropped."""
    scores: list[Score] = []
    missing: list[str] = []
    broken: tuple[list[str], list[str]] = [], []
    for prompt_id, wanted in reference.items():
        found = stable.get(prompt_id), canary.get(prompt_id)
        for at, name in enumerate(("stable", "canary")):
            text = found[at]
            if text is None:
                missing.append(f"{name}: no answer to {prompt_id}")
            elif not all(position.finite for position in text):
                broken[at].append(prompt_id)
        if found[0] and found[1] and all(p.finite for text in found for p in text or ()):
            scores.append(_score(cell.path, prompt_id, wanted, found[0], found[1]))
    return CellRound(
        cell=cell,
        asked=len(reference),
        scores=tuple(scores),
        stable_broken=tuple(broken[0]),
        broken=tuple(broken[1]),
        missing=tuple(missing),
    )


def _score(path: ProbePath, prompt_id: str, reference: Text, stable: Text, canary: Text) -> Score:
    # A scored text is given, and sampled from the reference; a greedy one is each arm's own.
    sampled = path is ProbePath.PREFILL
    end = common(reference, stable, canary)

    def mean_log_ratio(arm: Text) -> float:
        pairs = zip(reference[:end], arm[:end], strict=True)
        return fmean(divergence(one, other, sampled=sampled) for one, other in pairs)

    def agreement(arm: Text) -> float:
        pairs = zip(reference[:end], arm[:end], strict=True)
        return fmean(one.first == other.first for one, other in pairs)

    return Score(
        prompt_id=prompt_id,
        stable=mean_log_ratio(stable),
        canary=mean_log_ratio(canary),
        top1_drop=agreement(stable) - agreement(canary),
        tokens=end,
    )


@dataclass(slots=True)
class Clusters:
    """One cell over all rounds so far: every prompt's scores, and what is missing."""

    asked: int = 0
    scores: dict[str, list[Score]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    stable_broken: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, found: CellRound) -> None:
        """Take in another round."""
        self.asked += found.asked
        for score in found.scores:
            self.scores.setdefault(score.prompt_id, []).append(score)
        self.broken += found.broken
        self.stable_broken += found.stable_broken
        self.missing += found.missing

    @property
    def answered(self) -> int:
        """Texts that both arms answered with numbers, in all rounds."""
        return sum(map(len, self.scores.values()))

    @property
    def tokens(self) -> int:
        """Tokens scored in all rounds."""
        return sum(score.tokens for score in self._all())

    def excess(self) -> list[float]:
        """Each prompt's excess divergence, nats a token, its rounds averaged."""
        return [fmean(score.excess for score in found) for found in self.scores.values()]

    def top1_drop(self) -> list[float]:
        """Each prompt's loss of top-1 agreement, its rounds averaged."""
        return [fmean(score.top1_drop for score in found) for found in self.scores.values()]

    def floor(self) -> float | None:
        """Stable's own mean divergence from the reference: the noise that both arms share."""
        return fmean(score.stable for score in self._all()) if self.scores else None

    def _all(self) -> list[Score]:
        return [score for found in self.scores.values() for score in found]


def clusters(rounds: Sequence[Iterable[CellRound]]) -> dict[ProbeCell, Clusters]:
    """All rounds, by cell."""
    found: dict[ProbeCell, Clusters] = {}
    for one in rounds:
        for part in one:
            found.setdefault(part.cell, Clusters()).add(part)
    return dict(sorted(found.items()))
