"""vLLM plugin `moe_serve_emulation_cuda`: let vLLM's AITER path run on an NVIDIA GPU.

Opt-in: without `MOE_SERVE_EMULATE_AITER_CUDA=cktile` (or `flydsl`) in the environment, `register`
only adds the load format `moe_seeded`. With it vLLM's own method for GPT-OSS in MXFP4
(`--moe-backend aiter`) pads 2880 to 3072, loads, reorders and calls `rocm_aiter_fused_experts`;
below it lies the stand-in `aiter`. vLLM asks in four places whether it runs on an MI355X; these
answers are changed, and nothing else.
"""

import logging
import os
import sys
from types import ModuleType
from typing import Any

from moe_serve.vllm_plugin.import_hook import on_import
from moe_serve_emulation.errors import EmulationError

VARIABLE = "MOE_SERVE_EMULATE_AITER_CUDA"
PATHS = ("cktile", "flydsl")
ORACLE_MODULE = "vllm.model_executor.layers.fused_moe.oracle.mxfp4"
EXPERTS_MODULE = "vllm.model_executor.layers.fused_moe.experts.rocm_aiter_moe"
ROCM_MODULE = "vllm.platforms.rocm"
_MI355X = ("on_gfx950", "on_gfx9", "on_mi3xx")
_MARK = "_moe_serve_emulated"

logger = logging.getLogger("vllm.moe_serve_emulation")


def register() -> None:
    """Entry point in the group `vllm.general_plugins`; any number of calls patch once.

    Raises:
        EmulationError: the variable names no known path, or vLLM does not run on an NVIDIA GPU.
    """
    from moe_serve_emulation.cuda import loader

    loader.register()
    path = os.environ.get(VARIABLE, "")
    if not path:
        return
    if path not in PATHS:
        known = " and ".join(PATHS)
        raise EmulationError(f"{VARIABLE}={path}: the emulated paths are {known}; unset it")
    require_cuda(sys.modules["vllm.platforms"])
    sys.modules.setdefault(ROCM_MODULE, _rocm())
    on_import(ORACLE_MODULE, _open_oracle)
    on_import(EXPERTS_MODULE, _open_experts)


def require_cuda(platforms: ModuleType) -> None:
    """Refuse (`EmulationError`) unless `vllm.platforms` says that this is an NVIDIA GPU."""
    platform: Any = platforms.current_platform
    if not platform.is_cuda():
        raise EmulationError(
            f"{VARIABLE} is set, but vLLM's platform is {type(platform).__name__}: the emulation "
            "is for NVIDIA GPUs, unset it"
        )


def _rocm() -> ModuleType:
    """What vLLM asks of its ROCm platform on this path, with an MI355X's answers."""
    module = ModuleType(ROCM_MODULE)
    module.get_cdna_version = lambda: 4  # type: ignore[attr-defined]
    module.__getattr__ = _is  # type: ignore[method-assign]
    return module


def _is(name: str) -> Any:
    if not name.startswith("on_"):
        raise AttributeError(name)
    return lambda: name in _MI355X


class _RocmSizes:
    """vLLM's platform, but for `is_rocm`: sizes are then rounded up to 256."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def is_rocm(self) -> bool:
        """Whether sizes are rounded as for ROCm: yes."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _open_oracle(module: ModuleType) -> None:
    oracle: Any = module
    if not isinstance(oracle.current_platform, _RocmSizes):
        oracle.current_platform = _RocmSizes(oracle.current_platform)


def _open_experts(module: ModuleType) -> None:
    import torch
    import vllm._aiter_ops as aiter_ops
    from vllm.utils.torch_utils import direct_register_custom_op

    experts: Any = getattr(module, "AiterExperts", None)
    if experts is None:
        raise EmulationError(f"{EXPERTS_MODULE} has no AiterExperts: use vLLM 0.26")
    if hasattr(experts, _MARK):
        return
    if not hasattr(torch.ops.vllm, "rocm_aiter_fused_moe"):
        direct_register_custom_op(
            op_name="rocm_aiter_fused_moe",
            op_func=aiter_ops._rocm_aiter_fused_moe_impl,
            mutates_args=[],
            fake_impl=aiter_ops._rocm_aiter_fused_moe_fake,
            dispatch_key="CUDA",
        )
    ops = aiter_ops.rocm_aiter_ops
    ops.fused_moe_supports_gate_mode = classmethod(lambda cls: True)
    ops.get_moe_dispatch_policy = classmethod(lambda cls: 0)
    # Only these experts: `is_fused_moe_enabled` would bring AITER's router too.
    experts._supports_current_device = staticmethod(lambda: True)
    setattr(experts, _MARK, True)
    logger.warning("AITER's fused MoE is emulated on this GPU: for demo and tests only")
