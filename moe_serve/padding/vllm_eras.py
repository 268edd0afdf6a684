"""What each vLLM release pads the experts to, and which pads it sends to AITER.

Read in, and run against, the unmodified releases: `rocm_aiter_fused_experts` in
`fused_moe/experts/rocm_aiter_moe.py` and `mxfp4_round_up_hidden_size_and_intermediate_size` in
`fused_moe/oracle/mxfp4.py`. Newer releases are judged as the newest and marked unverified.
"""

from dataclasses import dataclass

from moe_serve.padding.builds import Build, ReleaseHistory
from moe_serve.padding.shapes import Activation, Pads, Quant, Shard
from moe_serve.padding.versions import Version, parse_version

NEWEST_VERIFIED = "0.33.0"

# Each release at which something that matters here changed.
_STARTS = (
    "0.21.0", "0.22.0", "0.23.0", "0.24.0", "0.25.0", "0.27.0", "0.28.0", "0.32.0", "0.33.0",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmEra:
    """The behaviour of one vLLM release."""

    version: Version
    text: str

    @property
    def sends_gate_mode(self) -> bool:
        """0.24 and newer tell AITER the layout of w13 (vLLM#44893)."""
        return self.version.minor >= (0, 24)

    def alignment(self, quant: Quant, activation: Activation) -> Pads:
        """Multiples that the loader pads hidden and intermediate to."""
        if quant is Quant.W4A4 and self.version.minor >= (0, 32):
            return Pads(hidden=256, intermediate=128)
        silu_like = activation in (Activation.SILU, Activation.SITU)
        if silu_like and quant is Quant.W4A16 and self.version.minor >= (0, 28):
            return Pads(hidden=128, intermediate=128)
        return Pads(hidden=256, intermediate=256)

    def sent(
        self, part: Shard, quant: Quant, activation: Activation, override: int | None = None
    ) -> Pads:
        """The pads that this release passes to `aiter.fused_moe`.

        `override` is `moe_config.intermediate_pad`, which a model may set from 0.25 on.
        """
        raw = part.raw
        if override is not None and self.version.minor >= (0, 25):
            raw = Pads(hidden=raw.hidden, intermediate=override)
        if self.version.minor < (0, 22):
            return raw
        if activation is Activation.SITU and self.version.minor >= (0, 27):
            return raw
        doubled = self._doubles(part, quant, activation)
        return rounded(raw, doubled=doubled)

    def _doubles(self, part: Shard, quant: Quant, activation: Activation) -> bool:
        if self.version.minor < (0, 23):
            return True
        if self.version.minor >= (0, 33) and quant is Quant.W4A4 and activation is Activation.SILU:
            return False
        return part.moe_tp == 1


def rounded(raw: Pads, *, doubled: bool) -> Pads:
    """The rule of vLLM#42098: hidden to 128, intermediate to 64 and, if `doubled`, times two."""
    return Pads(
        hidden=raw.hidden // 128 * 128,
        intermediate=raw.intermediate // 64 * 64 * (2 if doubled else 1),
    )


HISTORY: ReleaseHistory[VllmEra] = ReleaseHistory(
    product="vLLM",
    starts=tuple(parse_version(text, what="vLLM") for text in _STARTS),
    newest_read=parse_version(NEWEST_VERIFIED, what="vLLM"),
    line=2,
    era=lambda version, text: VllmEra(version=version, text=text),
)


def vllm_build(text: str, *, what: str = "--vllm") -> Build[VllmEra]:
    """What a version such as `0.22.1` is judged as.

    Raises:
        UsageError: not a version, or a release older than 0.21, whose code was never read.
    """
    return HISTORY.build(text, what=what)
