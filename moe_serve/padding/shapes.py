"""The sizes that padding is about: a model's, one rank's share of them, and pads.

All sizes count elements: `hidden` is the model dimension, `intermediate` the number of MoE
neurons (a neuron is one gate row and one up row of w13, and one column of w2).
"""

from dataclasses import dataclass
from enum import StrEnum

from moe_serve.errors import UsageError

# A size beyond any model's: what is larger is a mistake in the input.
LARGEST_SIZE = 10**7


class Quant(StrEnum):
    """How vLLM runs MXFP4 experts on ROCm: weight bits, activation bits."""

    W4A16 = "w4a16"
    W4A8 = "w4a8"
    W4A4 = "w4a4"


class Layout(StrEnum):
    """Order of w13's rows in memory: gate and up interleaved by 16, or one after the other."""

    INTERLEAVE = "interleave"
    SEPARATED = "separated"


class Activation(StrEnum):
    """The experts' activation, by vLLM's names; it decides alignment in newer releases."""

    SWIGLUOAI = "swigluoai"
    SILU = "silu"
    SITU = "situ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pads:
    """Padding in elements of each dimension: `intermediate` counts neurons, not rows."""

    hidden: int
    intermediate: int

    def __post_init__(self) -> None:
        """Refuse negative pads."""
        if self.hidden < 0 or self.intermediate < 0:
            raise UsageError(
                f"pads must not be negative: hidden {self.hidden}, intermediate {self.intermediate}"
            )

    def __str__(self) -> str:
        """`192/128`: hidden first, as AITER's arguments stand."""
        return f"{self.hidden}/{self.intermediate}"

    def to_json(self) -> dict[str, int]:
        """The form of `padding explain --output json`."""
        return {"hidden": self.hidden, "intermediate": self.intermediate}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDims:
    """An MoE model's sizes as its `config.json` gives them.

    `bias` says whether the experts have biases (None: unknown, so both are judged).
    """

    name: str
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    activation: Activation = Activation.SWIGLUOAI
    bias: bool | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that no model has."""
        for key in ("hidden", "intermediate", "experts", "top_k"):
            if not 1 <= getattr(self, key) <= LARGEST_SIZE:
                raise UsageError(
                    f"{self.name}: {key} is {str(getattr(self, key))[:20]}; it must be at least 1 "
                    f"and at most {LARGEST_SIZE}"
                )
        if self.top_k > self.experts:
            raise UsageError(
                f"{self.name}: top_k is {self.top_k}, more than its {self.experts} experts"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Tensor, expert and data parallel sizes of one deployment.

    vLLM flattens data parallelism into the experts' tensor parallelism unless experts are
    parallel, and then sets the experts' tensor parallel size to 1
    (`FusedMoEParallelConfig.make`).
    """

    tp: int = 1
    ep: bool = False
    dp: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes below 1."""
        for key in ("tp", "dp"):
            if not 1 <= getattr(self, key) <= LARGEST_SIZE:
                raise UsageError(
                    f"--{key}: {str(getattr(self, key))[:20]} is not a size; give 1 or more"
                )

    @property
    def ranks(self) -> int:
        """Ranks that share the experts."""
        return self.tp * self.dp

    @property
    def moe_tp(self) -> int:
        """Over how many ranks each expert's neurons are split."""
        return 1 if self.ep else self.ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One rank's experts: live sizes, and the sizes that the loader padded them to."""

    hidden: int
    intermediate: int
    padded_hidden: int
    padded_intermediate: int
    experts: int
    top_k: int
    moe_tp: int

    def __post_init__(self) -> None:
        """Refuse a padded size below the live one."""
        if self.padded_hidden < self.hidden or self.padded_intermediate < self.intermediate:
            raise UsageError(
                f"padded sizes {self.padded_hidden}x{self.padded_intermediate} are smaller than "
                f"the live sizes {self.hidden}x{self.intermediate}"
            )

    @property
    def raw(self) -> Pads:
        """How much of the padded sizes is padding."""
        return Pads(
            hidden=self.padded_hidden - self.hidden,
            intermediate=self.padded_intermediate - self.intermediate,
        )

    @property
    def ideal_elements(self) -> int:
        """Weight elements of one expert without any padding (w13 and w2)."""
        return 3 * self.intermediate * self.hidden


def shard(dims: ModelDims, parallel: Parallelism, *, align: Pads) -> Shard:
    """One rank's share of `dims`, padded up to multiples of `align`.

    Raises:
        UsageError: the neurons or the experts do not divide among the ranks.
    """
    if dims.intermediate % parallel.moe_tp:
        flags = f"--tp {parallel.tp}" + (f" --dp {parallel.dp}" if parallel.dp > 1 else "")
        raise UsageError(
            f"{flags}: {dims.intermediate} neurons do not divide by {parallel.moe_tp}; "
            f"give a size that divides them, or --ep"
        )
    if parallel.ep and dims.experts % parallel.ranks:
        raise UsageError(
            f"--ep: {dims.experts} experts do not divide by {parallel.ranks} ranks "
            f"(--tp times --dp)"
        )
    live = dims.intermediate // parallel.moe_tp
    return Shard(
        hidden=dims.hidden,
        intermediate=live,
        padded_hidden=round_up(dims.hidden, align.hidden),
        padded_intermediate=round_up(live, align.intermediate),
        experts=dims.experts // parallel.ranks if parallel.ep else dims.experts,
        top_k=dims.top_k,
        moe_tp=parallel.moe_tp,
    )


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
