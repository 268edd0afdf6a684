"""AITER's fused MoE emulated on a CPU, and small checkpoints that vLLM serves on it.

Takes the calls and pads of vLLM's ROCm worker; returns what AMD's kernels return, in a time that
follows the bytes that they fetch.
"""

from pathlib import Path

__version__ = "0.1.0"

# The folder that stands in for AITER on PYTHONPATH.
STANDIN = Path(__file__).parent / "standin"
# The module of vLLM that calls AITER's fused MoE.
AITER_MODULE = "vllm.model_executor.layers.fused_moe.experts.rocm_aiter_moe"
