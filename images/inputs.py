"""What the images' builds start from: their context, keys, the root file system, the wheel."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from images import pins
from images.engine import EPOCH, ImageError

ROOT = Path(__file__).parents[1]
HERE = ROOT / "images"
# What the Dockerfiles of the repository see: the same names as in the repository, and no more.
CONTEXT = ("Dockerfile.rocm", "images/serving", "images/ops", "images/vocabulary", "images/aiter")


def key_of(paths: Iterable[Path], *words: str) -> str:
    """Sixteen digits of what the files hold, of their names and modes, and of the words."""
    digest = hashlib.sha256()
    files = sorted(file for path in paths for file in _files(path))
    for file in files:
        digest.update(f"{file.name} {file.stat().st_mode & 0o111:o}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update("\n".join(words).encode())
    return digest.hexdigest()[:16]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    return [path]


def stage(context: Path) -> None:
    """Lay the build's context out: the wheel of this source, and what the Dockerfiles name."""
    shutil.rmtree(context, ignore_errors=True)
    for name in CONTEXT:
        source, target = ROOT / name, context / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    make_wheel(context / "dist")


def arguments() -> dict[str, str]:
    """The defaults of Dockerfile.rocm."""
    return pins.arguments((ROOT / "Dockerfile.rocm").read_text("utf-8"))


def free_gigabytes(place: Path) -> float:
    """What is free on the disk of a folder."""
    return shutil.disk_usage(place).free / 1e9


def require_disk(place: Path, gigabytes: float) -> None:
    """Stop before a build that cannot end.

    Raises:
        ImageError: too little is free.
    """
    free = free_gigabytes(place)
    if free < gigabytes:
        raise ImageError(
            f"{place}: {free:.1f} GB are free, {gigabytes:.0f} GB are needed; make room, or name "
            "another folder by MOE_SERVE_CACHE"
        )


def make_rootfs(archive: Path) -> None:
    """Debian's packages as one archive."""
    if not shutil.which("mmdebstrap"):
        raise ImageError("mmdebstrap is not here; Debian: apt-get install mmdebstrap")
    archive.parent.mkdir(parents=True, exist_ok=True)
    unfinished = archive.with_name("unfinished.tar")
    command = [str(HERE / "dev/rootfs"), str(unfinished)]
    if subprocess.run(
        command, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, check=False
    ).returncode:
        raise ImageError("images/dev/rootfs failed; its output is above")
    unfinished.replace(archive)


def make_wheel(folder: Path, source: Path = ROOT) -> None:
    """The wheel of a source folder; two of the same source are equal."""
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    if subprocess.run([*command, str(source)], env=environment, check=False).returncode:
        raise ImageError("the wheel could not be built; uv's output is above")


def revision() -> str:
    """The last commit that changed what the images hold, `-dirty` if more has changed since."""
    inputs = ["--", "moe_serve", "pyproject.toml", "README.md", "LICENSE", *CONTEXT]
    git = ["git", "-C", str(ROOT)]
    log = subprocess.run(
        [*git, "log", "-1", "--format=%H", *inputs], capture_output=True, text=True, check=False
    )
    status = subprocess.run(
        [*git, "status", "--porcelain", *inputs], capture_output=True, text=True, check=False
    )
    if log.returncode or not log.stdout.strip():
        return "unknown"
    return log.stdout.strip() + ("-dirty" if status.stdout.strip() else "")
