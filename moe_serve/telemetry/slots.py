"""What a worker counts: the words that record, exporter and judge share."""

from dataclasses import dataclass
from enum import StrEnum


class _Word(StrEnum):
    """A word that keys are made of: hashed as text, since Enum's own hash is Python code."""

    __hash__ = str.__hash__


class SlotKind(_Word):
    """What a slot counts.

    `kernel`: one fused-MoE call of a sampled layer. `window`: from the first sampled layer's start
    to the last one's stop in one forward pass, without head, sampling and drafter. `step`: the
    whole of `Worker.execute_model`, where that returns when the work is done (on a CPU).
    `schedule`: served steps and their real tokens; it has no time.
    """

    KERNEL = "kernel"
    WINDOW = "window"
    STEP = "step"
    SCHEDULE = "schedule"


class GraphMode(_Word):
    """How the work was launched: replayed in a full or a piecewise graph, or eagerly."""

    FULL = "full"
    PIECEWISE = "piecewise"
    EAGER = "eager"


class BatchPhase(_Word):
    """`decode`: every request has one token; `mixed`: not so; `any`: one graph serves both."""

    DECODE = "decode"
    MIXED = "mixed"
    ANY = "any"


class ModelRole(_Word):
    """The served model, or the one that drafts tokens for it."""

    TARGET = "target"
    DRAFT = "draft"


OVERFLOW = 0
_EXACT_ROWS, _LARGEST_BUCKET = 64, 8192
EAGER_BUCKETS = (*range(1, _EXACT_ROWS + 1), 128, 256, 512, 1024, 2048, 4096, 8192, OVERFLOW)


def eager_bucket(rows: int) -> int:
    """The bucket of an eager call: exact while small, then the next power of two, then overflow."""
    if rows <= _EXACT_ROWS:
        return rows
    return OVERFLOW if rows > _LARGEST_BUCKET else 1 << (rows - 1).bit_length()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """Which worker of a deployment writes a record."""

    dp: int = 0
    pp: int = 0
    tp: int = 0

    @property
    def name(self) -> str:
        """As in file names and labels."""
        return f"dp{self.dp}-pp{self.pp}-tp{self.tp}"

    @property
    def file_name(self) -> str:
        """One file a rank."""
        return f"{self.name}.record"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotKey:
    """One series of totals.

    `bucket` is the captured graph size, or `eager_bucket` of the rows; `layer` is None but for
    kernels; `ubatch` tells apart the halves of a dual-batch-overlap step.
    """

    kind: SlotKind
    mode: GraphMode
    phase: BatchPhase
    bucket: int
    layer: int | None = None
    ubatch: int = 0
    model: ModelRole = ModelRole.TARGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums since the worker's start; seconds.

    `tokens`: rows that went through, a graph's padding included. `invalid`: samples whose clock ran
    backwards, in no other total. `histogram`: one count a bound of `HISTOGRAM_SECONDS`, not
    cumulative, then those above the last.
    """

    count: int
    seconds: float
    max_seconds: float
    tokens: int
    invalid: int
    histogram: tuple[int, ...]


# A factor of 1.59 from 8 us to 208 ms: from one layer at batch 1 to a step of a long prefill.
HISTOGRAM_SECONDS = tuple(8e-6 * 2 ** (2 * step / 3) for step in range(23))
