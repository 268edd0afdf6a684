"""AITER's fused MoE on a CPU: the same call, the same skipping rules, time that follows bytes."""

from pathlib import Path

__version__ = "0.1.0"

# The folder that stands in for AITER on PYTHONPATH.
STANDIN = Path(__file__).parent / "standin"
