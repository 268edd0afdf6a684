"""The vLLM plugin `moe_serve_emulation`: the CPU worker runs the ROCm worker's MoE code.

Opt-in: without `MOE_SERVE_EMULATE_AITER=cktile` in the environment, `register` does nothing.
With it (or `flydsl`), vLLM's unquantised CPU experts pad and shuffle their weights as vLLM's ROCm
loader does and call vLLM's own `rocm_aiter_fused_experts`; below it lies the stand-in `aiter`
(`STANDIN`).
"""

import functools
import os
import sys
from types import ModuleType
from typing import Any

from moe_serve.vllm_plugin.import_hook import on_import
from moe_serve_emulation import AITER_MODULE
from moe_serve_emulation.errors import EmulationError

VARIABLE = "MOE_SERVE_EMULATE_AITER"
# `flydsl` is AITER 0.1.15, which passes the pads on: it reads columns that were never written.
PATHS = ("cktile", "flydsl")
EXPERTS_MODULE = "vllm.model_executor.layers.fused_moe.experts.cpu_moe"
WORKER_MODULE = "vllm.v1.worker.cpu_worker"


def register() -> None:
    """Patch vLLM when it loads its experts; the entry point in `vllm.general_plugins`.

    Any number of calls patch once.

    Raises:
        EmulationError: the variable names no known path, or vLLM does not run on a CPU.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    if path not in PATHS:
        known = " or ".join(PATHS)
        raise EmulationError(f"{VARIABLE}={path}: no emulated path; set it to {known}, or unset it")
    platforms = sys.modules.get("vllm.platforms")
    if platforms is not None:
        require_cpu(platforms)
    on_import(AITER_MODULE, _check_platform)
    on_import(EXPERTS_MODULE, _patch)
    on_import(WORKER_MODULE, _profile_first)


def require_cpu(platforms: ModuleType) -> None:
    """Raise `EmulationError` unless `vllm.platforms` has chosen the CPU platform."""
    platform = platforms.current_platform
    if not platform.is_cpu():
        name = getattr(platform, "device_name", "") or type(platform).__name__
        raise EmulationError(
            f"{VARIABLE}: vLLM's platform is {name}, and the emulation is for CPUs; unset it"
        )


def _check_platform(_: ModuleType) -> None:
    require_cpu(sys.modules["vllm.platforms"])


def _patch(module: ModuleType) -> None:
    require_cpu(sys.modules["vllm.platforms"])
    # Imported here because it needs torch and vLLM's modules, which register() must not load.
    from moe_serve_emulation import experts

    experts.patch(module)


def _profile_first(module: ModuleType) -> None:
    # A ROCm worker runs its model once before it serves, to profile its memory; lossy pads stop
    # the start there. vLLM's CPU worker does not in eager mode.
    measure = module.CPUWorker.determine_available_memory

    @functools.wraps(measure)
    def determine_available_memory(worker: Any) -> Any:
        worker.model_runner.profile_run()
        return measure(worker)

    module.CPUWorker.determine_available_memory = determine_available_memory
