"""Pure: is this the software that answers rightly, and are the pads that it will send safe."""

from collections.abc import Iterator, Mapping

from moe_serve.errors import UsageError
from moe_serve.padding.shapes import Parallelism
from moe_serve.padding.site_tables import read_ksplit
from moe_serve.preflight.checks import Check, fail, ok, skip
from moe_serve.preflight.known_bad import Deployment, known_bad
from moe_serve.preflight.models import Model
from moe_serve.preflight.pads import Unjudged, describe, judge_pads, reason
from moe_serve.preflight.software import (
    AITER,
    Software,
    aiter_moe,
    emulated,
    plugin_left_out,
)
from moe_serve.vllm_plugin.settings import MAX_LOSS, PADDING, Settings


def check_software(
    software: Software, environment: Mapping[str, str], *, gpu: bool
) -> Iterator[Check]:
    """vLLM, AITER, whether it is turned on, and whether vLLM will load the plugin."""
    if software.vllm:
        yield ok("vllm", software.vllm)
    else:
        yield fail("vllm", "not installed here; run preflight in the serving image")
    yield _aiter(software, gpu=gpu)
    yield _turned_on(environment, gpu=gpu)
    yield _plugin(software, environment)


def _aiter(software: Software, *, gpu: bool) -> Check:
    if software.aiter:
        return ok("aiter", software.aiter)
    if not gpu:
        return skip("aiter", "not installed, and --no-gpu")
    return fail("aiter", "amd-aiter is not installed; use AMD's serving image as the base")


def _turned_on(environment: Mapping[str, str], *, gpu: bool) -> Check:
    name, value = "aiter on", environment.get(AITER)
    if not gpu:
        return skip(name, "--no-gpu")
    if value is None:
        return fail(
            name,
            f"{AITER} is not set, and vLLM's default is off; set it to 1, or to 0 to say that "
            "vLLM's own kernels are meant",
        )
    if aiter_moe(environment):
        return ok(name, f"{AITER}={value}")
    return ok(name, f"{AITER}={value}: the experts are meant to run on vLLM's own kernels")


def _plugin(software: Software, environment: Mapping[str, str]) -> Check:
    if environment.get(PADDING) == "off":
        return skip("plugin", f"{PADDING}=off: stock vLLM, without proof")
    if not software.plugin:
        return fail("plugin", "vLLM will not find it; install moe-serve beside vLLM")
    if plugin_left_out(environment):
        return fail("plugin", "VLLM_PLUGINS leaves moe_serve out; add it")
    return ok("plugin", "vLLM will load it")


def check_known_bad(
    model: Model | None,
    parallel: Parallelism,
    software: Software,
    environment: Mapping[str, str],
    *,
    gfx: str | None,
) -> Check:
    """Whether anybody measured wrong answers with this combination."""
    name = "known-bad"
    if not aiter_moe(environment):
        return skip(name, "the experts do not run on AITER")
    if model is not None and not model.gpt_oss:
        return skip(name, f"the table is about GPT-OSS, not {model.name}")
    try:
        ksplit = read_ksplit(environment)
    except UsageError as error:
        return fail(name, str(error))
    deployment = Deployment(
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


def check_pads(
    model: Model | None,
    parallel: Parallelism,
    software: Software,
    settings: Settings,
    environment: Mapping[str, str],
) -> Check:
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
