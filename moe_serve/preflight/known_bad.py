"""Combinations of software that answer wrongly with HTTP 200, and who found out.

A row is here because somebody met wrong answers, not because a sum says so: what pads lose
is the contract's matter, for every release. All rows are about GPT-OSS with AITER's fused MoE on
gfx950; elsewhere vLLM takes other kernels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.builds import Build
from moe_serve.padding.shapes import Parallelism
from moe_serve.padding.site_tables import read_ksplit
from moe_serve.padding.versions import Version, parse_version
from moe_serve.padding.vllm_eras import VllmEra, vllm_build
from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.software import Software, aiter_moe, emulated
from moe_serve.vllm_plugin.aiter_source import narrowed_build

GFX = "gfx950"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBadQuery:
    """What a row is matched with; None: not known, so a row that needs it matches.

    `aiter_moe`: whether the experts run on AITER's fused MoE. `ksplit`: the value of
    `AITER_KSPLIT`, 0 where AITER chooses.
    """

    vllm: str | None
    aiter: str | None
    tp: int
    gfx: str | None
    aiter_moe: bool
    gpt_oss: bool
    ksplit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """One row: versions from `since` up to, not including, `below`; None: no bound.

    `split_k_only`: it needs more than one split, so AITER_KSPLIT=1 avoids it.
    """

    id: str
    vllm_below: str | None = None
    vllm_since: str | None = None
    aiter_since: str | None = None
    aiter_below: str | None = None
    tp_above: int = 0
    split_k_only: bool = False
    what: str
    evidence: str
    instead: str

    def matches(self, deployment: KnownBadQuery) -> bool:
        """Whether this row speaks of that deployment."""
        if not deployment.aiter_moe or not deployment.gpt_oss or deployment.tp <= self.tp_above:
            return False
        if deployment.gfx not in (GFX, None):
            return False
        if self.split_k_only and deployment.ksplit in (-1, 1):
            return False
        return self._vllm(deployment.vllm) and self._aiter(deployment.aiter)

    def _vllm(self, text: str | None) -> bool:
        if self.vllm_since is None and self.vllm_below is None:
            return True
        build = _vllm_build(text)
        # A build that may be of any release is not known to be one of these.
        if build is None or len(build.eras) > _MOST_NEIGHBOURS:
            return False
        return any(_within(era.version, self.vllm_since, self.vllm_below) for era in build.eras)

    def _aiter(self, text: str | None) -> bool:
        if self.aiter_since is None and self.aiter_below is None:
            return True
        try:
            build = narrowed_build(text, what="AITER")
        except UsageError:
            build = narrowed_build(None, what="AITER")
        # Without AITER's version the row's other half is not known: that is no acquittal.
        return any(_within(era.version, self.aiter_since, self.aiter_below) for era in build.eras)


# Releases around a development build: the one before it, its own, and the next line's.
_MOST_NEIGHBOURS = 3

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
        id="split-k-gelu",
        aiter_since="0.1.12",
        aiter_below="0.1.13.post1",
        split_k_only=True,
        what="at small batches this AITER ends a split SwiGLU with GELU, and GPT-OSS answers "
        "rubbish (MI355X, TP=8)",
        evidence="AITER#2960",
        instead="use AITER 0.1.13.post1 or newer, or set AITER_KSPLIT=1",
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


def known_bad(deployment: KnownBadQuery) -> Iterator[KnownBad]:
    """The rows that speak of `deployment`."""
    return (row for row in KNOWN_BAD if row.matches(deployment))


def _within(version: Version, since: str | None, below: str | None) -> bool:
    if since is not None and version < parse_version(since, what="known-bad"):
        return False
    return below is None or version < parse_version(below, what="known-bad")


def _vllm_build(text: str | None) -> Build[VllmEra] | None:
    try:
        return vllm_build(text, what="vLLM") if text else None
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
    if emulated(environment) and software.aiter is None:
        return skip(name, "AITER is emulated, and its emulation is not on PYTHONPATH yet")
    if model is not None and not model.gpt_oss:
        return skip(name, f"the table is about GPT-OSS, not {model.name}")
    try:
        ksplit = read_ksplit(environment)
    except UsageError as error:
        return fail(name, str(error))
    deployment = KnownBadQuery(
        vllm=software.vllm,
        aiter=software.aiter,
        tp=parallel.ranks,
        gfx=gfx,
        aiter_moe=True,
        gpt_oss=True,
        ksplit=ksplit,
    )
    rows = [
        f"{row.id}: {row.what} ({row.evidence}); {row.instead}" for row in known_bad(deployment)
    ]
    if rows:
        return fail(name, "; ".join(rows))
    return ok(name, "nobody reported wrong answers with these versions")
