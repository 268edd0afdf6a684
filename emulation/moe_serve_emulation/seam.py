"""vLLM plugin `moe_serve_emulation`: let vLLM's CPU worker take the road of the ROCm worker.

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
from moe_serve_emulation.errors import EmulationError

VARIABLE = "MOE_SERVE_EMULATE_AITER"
# `flydsl` is AITER 0.1.15, which hands it the pads: columns stay unwritten, and are read.
PATHS = ("cktile", "flydsl")
EXPERTS_MODULE = "vllm.model_executor.layers.fused_moe.experts.cpu_moe"
WORKER_MODULE = "vllm.v1.worker.cpu_worker"
AITER_MODULE = "vllm.model_executor.layers.fused_moe.experts.rocm_aiter_moe"


def register() -> None:
    """Entry point in the group `vllm.general_plugins`; any number of calls patch once.

    Raises:
        EmulationError: the variable names no known path, or vLLM does not run on a CPU.
    """
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    if path not in PATHS:
        known = " and ".join(PATHS)
        raise EmulationError(f"{VARIABLE}={path}: the emulated paths are {known}; unset it")
    platforms = sys.modules.get("vllm.platforms")
    if platforms is not None:
        require_cpu(platforms)
    on_import(AITER_MODULE, _check_platform)
    on_import(EXPERTS_MODULE, _patch)
    on_import(WORKER_MODULE, _profile_first)


def require_cpu(platforms: ModuleType) -> None:
    """Refuse (`EmulationError`) unless `vllm.platforms` says that this is a CPU."""
    platform = platforms.current_platform
    if not platform.is_cpu():
        name = getattr(platform, "device_name", "") or type(platform).__name__
        raise EmulationError(
            f"{VARIABLE} is set, but vLLM's platform is {name}: the emulation is for CPUs, unset it"
        )


def _check_platform(_: ModuleType) -> None:
    require_cpu(sys.modules["vllm.platforms"])


def _patch(module: ModuleType) -> None:
    require_cpu(sys.modules["vllm.platforms"])
    # Imports torch and vLLM's own modules: too early in register(), fine once vLLM loads experts.
    from moe_serve_emulation import experts

    experts.patch(module)


def _profile_first(module: ModuleType) -> None:
    # A ROCm worker runs its model once before it serves, to profile its memory, which is when
    # lossy pads stop the start. vLLM's CPU worker leaves that out in eager mode.
    measure = module.CPUWorker.determine_available_memory

    @functools.wraps(measure)
    def determine_available_memory(worker: Any) -> Any:
        worker.model_runner.profile_run()
        return measure(worker)

    module.CPUWorker.determine_available_memory = determine_available_memory
