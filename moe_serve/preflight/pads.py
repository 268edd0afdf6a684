"""What the plugin will send for this model, spread this way, on this software.

It asks the contract the plugin's question before the weights are loaded: the plugin asks it again
with the real call, and has the last word.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.aiter_eras import aiter_era
from moe_serve.padding.contract import Call, Policy, Report, assess
from moe_serve.padding.shapes import Parallelism, Quant, shard
from moe_serve.padding.vllm_eras import vllm_era
from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.preflight.models import ModelFiles
from moe_serve.preflight.software import Software, emulated
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, PluginSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Unjudged:
    """The contract was not asked, and why."""

    why: str


def judge_pads(
    model: ModelFiles,
    parallel: Parallelism,
    software: Software,
    *,
    policy: Policy,
    max_loss: float,
    emulated: bool = False,
) -> Report | Unjudged:
    """Ask the contract; `emulated`: unquantised weights take AITER's road too.

    Raises:
        UsageError: the model cannot be spread this way, or a version is none that is known.
    """
    if model.dims is None:
        return Unjudged(why=model.unknown or "its sizes are not known")
    if model.quant is None and not emulated:
        return Unjudged(why="its experts are not MXFP4, so vLLM does not pad them")
    if model.quant not in ("mxfp4", None):
        return Unjudged(why=f"it is not known which kernel takes its quantisation, {model.quant}")
    if software.vllm is None:
        raise UsageError("vLLM is not installed here; use the serving image")
    vllm = vllm_era(software.vllm, what="vLLM")
    aiter = aiter_era(software.aiter, what="AITER") if software.aiter else None
    align = vllm.alignment(Quant.W4A16, model.dims.activation)
    call = Call(
        part=shard(model.dims, parallel, align=align),
        vllm=vllm,
        aiter=aiter,
        activation=model.dims.activation,
        bias=model.dims.bias,
    )
    return assess(call, policy, max_loss=max_loss)


def describe(report: Report) -> str:
    """One line: pads, and what they lose."""
    part = report.call.part
    lost = max(report.lost.stage1_neurons, report.lost.stage2_k)
    text = f"pads {report.sent} of {part.raw} sent (policy {report.policy}), "
    text += f"{lost} of {part.intermediate} neurons lost" if lost else "no neuron lost"
    if not report.call.verified:
        text += "; newer than any release that was read, judged as the newest"
    return text


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
    try:
        answer = judge_pads(
            model,
            parallel,
            software,
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
