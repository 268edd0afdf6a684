"""What the plugin will send for this model, spread this way, on this software.

It asks the contract the plugin's question before the weights are loaded: the plugin asks it again
with the real call, and has the last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.contract import PaddingPolicy, Report
from moe_serve.padding.deployment import Deployment, judge
from moe_serve.padding.shapes import Parallelism, Quant
from moe_serve.padding.site_tables import read_ksplit
from moe_serve.padding.vllm_eras import vllm_build
from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.software import Software, aiter_moe, emulated
from moe_serve.vllm_plugin.aiter_source import is_importable, narrowed_build
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, PluginSettings
from moe_serve.vllm_plugin.site import read_site


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """The contract was not asked, and why."""

    why: str


def judge_pads(
    model: ModelFiles,
    parallel: Parallelism,
    software: Software,
    environment: Mapping[str, str],
    *,
    policy: PaddingPolicy,
    max_loss: float,
    emulated: bool = False,
) -> Report | Unjudged:
    """Ask the contract; `emulated`: unquantised weights take AITER's path too.

    Raises:
        UsageError: the model cannot be spread this way, or a version is none that is known.
    """
    if model.facts is None:
        return Unjudged(why=model.unknown or "its sizes are not known")
    quant = model.quantization.scheme or (_unquantised(model) if emulated else None)
    if quant is None:
        return Unjudged(why=_why_unjudged(model))
    if software.vllm is None:
        raise UsageError("vLLM is not installed here; use the serving image")
    if software.aiter is None and not is_importable():
        return Unjudged(why="AITER is not installed here")
    deployment = Deployment(
        model=model.facts,
        parallel=parallel,
        vllm=vllm_build(software.vllm, what="vLLM"),
        aiter=narrowed_build(software.aiter, what="AITER"),
        quant=quant,
        ksplit=read_ksplit(environment),
        site=read_site(environment),
    )
    return judge(deployment, policy, max_loss=max_loss).worst


def _unquantised(model: ModelFiles) -> Quant | None:
    return Quant.W4A16 if model.quantization.name is None else None


def _why_unjudged(model: ModelFiles) -> str:
    name = model.quantization.name
    if name is None:
        return "its experts are not MXFP4, so vLLM does not pad them"
    return f"it is not known which kernel takes its quantisation, {name}"


def describe(report: Report) -> str:
    """One line: pads, and what they lose."""
    part = report.call.part
    lost = max(report.lost.stage1_neurons, report.lost.stage2_k)
    text = f"pads {report.sent} of {part.raw} sent (policy {report.policy}), "
    text += f"{lost} of {part.intermediate} neurons lost" if lost else "no neuron lost"
    return "; ".join((text, *report.call.unverified))


def reason(report: Report) -> str:
    """The first and worst of what is wrong; `moe-serve padding check` tells all."""
    return report.violations[0].message


def check_pads(
    model: ModelFiles | None,
    parallel: Parallelism,
    software: Software,
    settings: PluginSettings,
    environment: Mapping[str, str],
) -> PreflightCheck:
    """Whether what the plugin will send loses no more than was declared."""
    name = "pads"
    if model is None:
        return skip(name, "no --model")
    if settings.policy is None:
        return skip(name, f"{PADDING}=off: vLLM's own pads, not judged")
    if not aiter_moe(environment):
        return ok(name, "none are sent: the experts do not run on AITER")
    try:
        answer = judge_pads(
            model,
            parallel,
            software,
            environment,
            policy=settings.policy,
            max_loss=settings.max_loss,
            emulated=emulated(environment),
        )
    except UsageError as error:
        return fail(name, str(error))
    if isinstance(answer, Unjudged):
        return skip(name, f"{model.name}: {answer.why}")
    if answer.safe:
        return ok(name, describe(answer))
    return fail(
        name,
        f"{describe(answer)}: {reason(answer)}; set {PADDING}=aligned, or declare the loss in "
        f"{MAX_LOSS}",
    )
