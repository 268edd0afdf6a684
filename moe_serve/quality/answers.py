"""What an arm answered to one fixed prompt, as token ids and log-probabilities (nats)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError


class AnswerKind(StrEnum):
    """Teacher-forced scores stored tokens (prefill kernels); greedy writes its own (decode)."""

    TEACHER_FORCED = "teacher_forced"
    GREEDY = "greedy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One prompt's answer at one concurrency.

    `logprobs` are in nats, one a token. `top1` is the arm's own first choice at each position of
    a teacher-forced text, where it is known. Values that are not finite are kept: they are news.
    """

    prompt_id: str
    concurrency: int
    kind: AnswerKind
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top1: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse an answer whose parts do not belong together."""
        lengths = {len(self.token_ids), len(self.logprobs)}
        lengths |= {len(self.top1)} if self.top1 is not None else set()
        if len(lengths) != 1 or not self.token_ids:
            raise UsageError(
                f"{self.prompt_id}: tokens, logprobs and top1 must be of one length above 0, "
                f"got {sorted(lengths)}"
            )

    @property
    def key(self) -> str:
        """`scored-3 at concurrency 1`: what pairs an answer with the other arm's."""
        return f"{self.prompt_id} at concurrency {self.concurrency}"


def by_key(answers: Iterable[Answer], kind: AnswerKind, arm: str) -> dict[str, Answer]:
    """The arm's answers of one kind by their key.

    Raises:
        UsageError: the arm answered one prompt twice, so that it is unclear which one counts.
    """
    found: dict[str, Answer] = {}
    for answer in answers:
        if answer.kind is not kind:
            continue
        if answer.key in found:
            raise UsageError(f"{arm}: two {kind.value} answers to {answer.key}")
        found[answer.key] = answer
    return found
