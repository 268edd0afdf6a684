"""The compute engine's firmware where /sys does not tell it: what AMD's tools print.

Both tools mean RCCL's number, which is the lower 11 bits of it.
"""

import re
import subprocess
from collections.abc import Callable, Sequence

BITS = 0x7FF
_SECONDS = 20
_TOOLS: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("rocm-smi", "--showfw"), re.compile(r"\bMEC firmware version:\s*(\w+)")),
    (("amd-smi", "firmware"), re.compile(r"FW_ID:\s*CP_MEC1\s+FW_VERSION:\s*(\w+)")),
)


def run_tool(command: Sequence[str]) -> str:
    """What a tool prints; nothing if it is absent, hangs or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def ask_tools(run: Callable[[Sequence[str]], str] = run_tool) -> int | None:
    """The lowest version that the first tool that knows tells of any GPU; None: neither knows."""
    for command, pattern in _TOOLS:
        found = [_number(text) for text in pattern.findall(run(command))]
        known = [number & BITS for number in found if number is not None]
        if known:
            return min(known)
    return None


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
