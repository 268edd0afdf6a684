"""Run in vLLM's environment: to what the real loader pads experts for AITER's kernels on CDNA4.

    PYTHONPATH=<unpacked release> python alignments.py

Prints one JSON line: `<scheme> <activation>` to the padded hidden and intermediate size of 1 x 1.
"""

import inspect
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

SCHEMES = {"w4a16": "AITER_MXFP4_BF16", "w4a4": "AITER_MXFP4_MXFP4"}
ACTIVATIONS = {"swigluoai": "SWIGLUOAI", "silu": "SILU"}


def main() -> None:
    """Ask the loader's own function, as on an MI355X."""
    rocm = ModuleType("vllm.platforms.rocm")
    rocm.get_cdna_version = lambda: 4  # type: ignore[attr-defined]
    sys.modules["vllm.platforms.rocm"] = rocm
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.oracle import mxfp4

    mxfp4.current_platform = SimpleNamespace(is_rocm=lambda: True, is_xpu=lambda: False)
    function = mxfp4.mxfp4_round_up_hidden_size_and_intermediate_size
    knows_activation = "activation" in inspect.signature(function).parameters
    found: dict[str, Any] = {}
    for scheme, backend in SCHEMES.items():
        if not hasattr(mxfp4.Mxfp4MoeBackend, backend):
            continue
        for name, member in ACTIVATIONS.items():
            more = [getattr(MoEActivation, member)] if knows_activation else []
            padded = function(getattr(mxfp4.Mxfp4MoeBackend, backend), 1, 1, *more)
            found[f"{scheme} {name}"] = list(padded)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
