"""Combinations of software that answer wrongly with HTTP 200, and who found out.

A row is here because somebody met wrong answers, not because a sum says so: what pads lose
is the contract's matter, for every release. All rows are about GPT-OSS with AITER's fused MoE on
gfx950; elsewhere vLLM takes other kernels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.shapes import Parallelism
from moe_serve.padding.versions import Version, parse_version
from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.software import Software, aiter_moe

GFX = "gfx950"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a row is matched with; None: not known, so a row that needs it matches.

    `aiter_moe`: whether the experts run on AITER's fused MoE.
    """

    vllm: str | None
    aiter: str | None
    tp: int
    gfx: str | None
    aiter_moe: bool
    gpt_oss: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """One row: versions from `since` up to, not including, `below`; None: no bound."""

    id: str
    vllm_below: str
    vllm_since: str = "0.0"
    aiter_since: str | None = None
    tp_above: int = 0
    what: str
    evidence: str
    instead: str

    def matches(self, deployment: Deployment) -> bool:
        """Whether this row speaks of that deployment."""
        if not deployment.aiter_moe or not deployment.gpt_oss or deployment.tp <= self.tp_above:
            return False
        if deployment.gfx not in (GFX, None):
            return False
        return self._vllm(deployment.vllm) and self._aiter(deployment.aiter)

    def _vllm(self, text: str | None) -> bool:
        version = _version(text)
        if version is None:
            return False
        return _at_least(self.vllm_since) <= version < _at_least(self.vllm_below)

    def _aiter(self, text: str | None) -> bool:
        if self.aiter_since is None:
            return True
        version = _version(text)
        # Without AITER's version the row's other half is not known: that is no acquittal.
        return version is None or version >= _at_least(self.aiter_since)


KNOWN_BAD = (
    KnownBad(
        id="vllm-0.22-tensor-parallel",
        vllm_since="0.22.0",
        vllm_below="0.23.0",
        tp_above=1,
        what="GSM8K fell from 0.896 to 0.684 at TP=8 on MI355X",
        evidence="vLLM#44679, bisected there to vLLM#42098",
        instead="use vLLM 0.24 or newer",
    ),
    KnownBad(
        id="vllm-0.23.0",
        vllm_since="0.23.0",
        vllm_below="0.24.0",
        what="GPT-OSS is reported broken on gfx950; AMD's own recipe turns AITER's MoE off for it",
        evidence="amd/skills#71 and #72",
        instead="use vLLM 0.24 or newer, or set VLLM_ROCM_USE_AITER_MOE=0",
    ),
    KnownBad(
        id="gate-mode-missing",
        vllm_below="0.24.0",
        aiter_since="0.1.14",
        what="this AITER reads the experts' rows in another order than this vLLM stores them; "
        "GPT-OSS-120B scored 0",
        evidence="vLLM#44893, AITER#3586",
        instead="use vLLM 0.24 or newer, or the AITER that came with this vLLM",
    ),
)


def known_bad(deployment: Deployment) -> Iterator[KnownBad]:
    """The rows that speak of `deployment`."""
    return (row for row in KNOWN_BAD if row.matches(deployment))


def _at_least(text: str) -> Version:
    return parse_version(f"{text}.dev0", what="known-bad")


def _version(text: str | None) -> Version | None:
    try:
        return parse_version(text, what="version") if text else None
    except UsageError:
        return None


def check_known_bad(
    model: ModelFiles | None,
    parallel: Parallelism,
    software: Software,
    environment: Mapping[str, str],
    *,
    gfx: str | None,
) -> PreflightCheck:
    """Whether anybody measured wrong answers with this combination."""
    name = "known-bad"
    if not aiter_moe(environment):
        return skip(name, "the experts do not run on AITER")
    if model is not None and not model.gpt_oss:
        return skip(name, f"the table is about GPT-OSS, not {model.name}")
    deployment = Deployment(
        vllm=software.vllm,
        aiter=software.aiter,
        tp=parallel.ranks,
        gfx=gfx,
        aiter_moe=True,
        gpt_oss=True,
    )
    rows = [
        f"{row.id}: {row.what} ({row.evidence}); {row.instead}" for row in known_bad(deployment)
    ]
    if rows:
        return fail(name, "; ".join(rows))
    return ok(name, "nobody reported wrong answers with these versions")
