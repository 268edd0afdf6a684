"""AITER's fused MoE on an NVIDIA GPU: the same call and the same skipping rules, in Triton."""

from pathlib import Path

# Laid over the CPU's stand-in for AITER: only the modules that differ on a GPU.
STANDIN = Path(__file__).parent / "standin"
