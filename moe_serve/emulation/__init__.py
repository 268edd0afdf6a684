"""AITER's fused MoE on a CPU: the same call, the same skipping rules, time that follows bytes."""

from pathlib import Path

# The folder that stands in for AITER on PYTHONPATH.
STANDIN = Path(__file__).parent / "standin"
