"""What `moe-serve serve` says before it becomes vLLM, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve import __version__
from moe_serve.errors import UsageError
from moe_serve.padding.contract import Report
from moe_serve.padding.site_tables import read_ksplit
from moe_serve.preflight.arguments import EngineArguments
from moe_serve.preflight.known_bad import KnownBadQuery, known_bad
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.pads import Unjudged, describe, judge_pads, reason
from moe_serve.preflight.software import Software, aiter_moe, emulated, plugin_left_out
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, PluginSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """`line` is said; `refusals` stop it, each with what to do."""

    line: str
    refusals: tuple[str, ...]


def decide(
    arguments: EngineArguments,
    model: ModelFiles,
    software: Software,
    settings: PluginSettings,
    *,
    gfx: str | None,
    environment: Mapping[str, str],
) -> Start:
    """Judge a start from what is known before it; `gfx` None: no GPU told its target."""
    on_aiter = aiter_moe(environment, arguments.moe_backend)
    deployment = KnownBadQuery(
        vllm=software.vllm,
        aiter=software.aiter,
        tp=arguments.parallel.ranks,
        gfx=gfx,
        aiter_moe=on_aiter,
        gpt_oss=model.gpt_oss,
        ksplit=read_ksplit(environment),
    )
    refusals = [
        f"known-bad ({row.id}): vLLM {software.vllm} with AITER {software.aiter or 'unknown'} at "
        f"{_spread(arguments)}: {row.what} ({row.evidence}); {row.instead}"
        for row in known_bad(deployment)
    ]
    pads, wrong = _pads(arguments, model, software, settings, environment, on_aiter=on_aiter)
    return Start(
        line=f"moe-serve {__version__}: {_versions(software, gfx)}; {model.name} at "
        f"{_spread(arguments)}; {pads}",
        refusals=(*refusals, *wrong),
    )


def _pads(
    arguments: EngineArguments,
    model: ModelFiles,
    software: Software,
    settings: PluginSettings,
    environment: Mapping[str, str],
    *,
    on_aiter: bool,
) -> tuple[str, tuple[str, ...]]:
    if settings.policy is None:
        return f"{PADDING}=off: stock vLLM, its own pads, no proof", ()
    if not software.plugin or plugin_left_out(environment):
        why = (
            "VLLM_PLUGINS leaves moe_serve out; add it"
            if software.plugin
            else "vLLM will not find moe-serve's plugin; install moe-serve beside vLLM"
        )
        return "no plugin", (f"{why}, or set {PADDING}=off to serve with vLLM's own pads",)
    if not on_aiter:
        return "the experts do not run on AITER (VLLM_ROCM_USE_AITER), so no pads are sent", ()
    if arguments.config is not None:
        return f"pads not judged: flags in {arguments.config} are not read", ()
    try:
        answer = judge_pads(
            model,
            arguments.parallel,
            software,
            environment,
            policy=settings.policy,
            max_loss=settings.max_loss,
            emulated=emulated(environment),
        )
    except UsageError as error:
        return f"pads not judged: {error}", ()
    if isinstance(answer, Unjudged):
        return f"pads not judged: {answer.why}", ()
    return describe(answer), _loss(answer)


def _loss(report: Report) -> tuple[str, ...]:
    if report.safe:
        return ()
    return (
        f"unsafe pads: {describe(report)}: {reason(report)}; set {PADDING}=aligned, "
        f"or declare the loss in {MAX_LOSS}",
    )


def _versions(software: Software, gfx: str | None) -> str:
    text = f"vLLM {software.vllm}, AITER {software.aiter or 'not installed'}"
    return f"{text}, {gfx}" if gfx else text


def _spread(arguments: EngineArguments) -> str:
    parallel = arguments.parallel
    if arguments.config is not None:
        return f"TP as in {arguments.config}"
    text = f"TP={parallel.tp}"
    text += f" DP={parallel.dp}" if parallel.dp > 1 else ""
    return f"{text} EP" if parallel.ep else text
