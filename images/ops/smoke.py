"""The small image proves itself before it leaves the build: as its own user, without a network."""

import importlib
import os
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import moe_serve

# What is meant for the serving image, or for a machine that draws reports.
_ELSEWHERE = ("moe_serve.vllm_plugin", "moe_serve.report")
# What this image may hold beyond its base; numpy and scipy, each with a BLAS, are 165 of it, the
# Kubernetes client is 45.
_MEGABYTES = 285
_HEAVY = ("torch", "vllm", "triton", "transformers")


def main() -> None:
    """Import every module of ours that this image is for, and run the command."""
    if os.getuid() == 0:
        sys.exit("smoke test: runs as root")
    present = [name for name in _HEAVY if find_spec(name)]
    if present:
        sys.exit(f"smoke test: {', '.join(present)} has no part in this image")
    names = [
        module.name
        for module in pkgutil.walk_packages(moe_serve.__path__, "moe_serve.")
        if not module.name.startswith(_ELSEWHERE) and not module.name.endswith("__main__")
    ]
    for name in names:
        importlib.import_module(name)
    size = sum(file.lstat().st_size for file in Path(sys.prefix).rglob("*")) / 1e6
    if size > _MEGABYTES:
        sys.exit(f"smoke test: {size:.0f} MB in {sys.prefix}, {_MEGABYTES} are allowed")
    print(f"smoke test: {size:.0f} MB of {_MEGABYTES} in {sys.prefix}")
    print(f"smoke test: UID {os.getuid()} imports all {len(names)} modules")
    subprocess.run(["moe-serve", "--version"], check=True)


if __name__ == "__main__":
    main()
