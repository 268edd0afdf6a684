"""Lay real vLLM into a folder that fits through a narrow door: `make gpu-bundle`.

    python -m tools.gpu bundle --out .gpu/bundle --wheels .cache/gpu-wheels

The GPU machine has Python, PyTorch and Triton and no network. What it lacks is vLLM, its own
compiled ops and some forty wheels. A vLLM wheel holds GPU code for eight architectures: every image
that is not for the target's is overwritten with zeros in place (offsets stay, so the library loads
as it is), which xz then makes small. No op is replaced; PyTorch must be the one that the wheel was
built for. Names, versions and hashes are those of `pins.json`; nothing that is downloaded belongs
into the repository. `--renew` writes the hashes of new pins.
"""

import hashlib
import json
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_serve.errors import MoeServeError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINS = HERE / "pins.json"
ARCHIVE, MANIFEST = "site.tar.xz", "manifest.json"
# Bytes: of the bundle alone, and of what travels with it.
LARGEST_BUNDLE, LARGEST_TOGETHER = 55 << 20, 60 << 20

# What vLLM imports for `LLM` and `vllm serve` and the machine's image lacks. openai: newer ones
# want httpx2; xgrammar: fits the apache-tvm-ffi that vLLM pins.
NEEDS = (
    "pydantic==2.14.4", "pydantic-core==2.50.5", "annotated-types", "typing-inspection", "pyzmq",
    "msgspec", "cachetools", "blake3", "cbor2", "pybase64", "python-json-logger",
    "partial-json-parser", "openai-harmony", "openai==2.45.0", "distro", "jiter", "sniffio",
    "fastapi==0.136.0", "starlette<2", "uvicorn", "llguidance<1.8", "xgrammar==0.2.1",
    "apache-tvm-ffi==0.1.10", "prometheus-fastapi-instrumentator", "setproctitle", "watchfiles",
    "httptools", "python-multipart", "ijson", "jsonschema", "jsonschema-specifications",
    "referencing", "rpds-py", "model-hosting-container-standards", "jmespath",
    "compressed-tensors==0.17.0", "loguru", "bcrypt",
)  # fmt: skip
# pip matches the number exactly.
_GLIBC = (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
_PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in _GLIBC]
_PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64"]

# Of vLLM's compiled libraries, those that are laid; with what becomes of their GPU code.
KEPT = (
    "_C_stable_libtorch.abi3.so",
    "_moe_C_stable_libtorch.abi3.so",
    "spinloop.abi3.so",
    "cumem_allocator.abi3.so",
    "fs_io_C.abi3.so",
)
# Only its import is needed: attention runs in Triton.
EMPTIED = ("_vllm_fa3_C.abi3.so",)
LEFT_OUT = (
    "third_party/deep_gemm/",
    "third_party/fmha_sm100",
    "third_party/tml_fa4",
    "entrypoints/serve/instrumentator/static",
    "vllm-rs",
    "benchmarks",
)
_SOURCES = (".jpg", ".cu", ".h", ".cuh", ".hpp")

# A fat binary's header, and the kinds of an image within it.
_MAGIC, _CUBIN = b"\x50\xed\x55\xba", 2


class BundleError(MoeServeError):
    """The bundle cannot be made or used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Left:
    """GPU code of one library: bytes that were kept and bytes that became zeros."""

    library: str
    kept: int
    zeroed: int


def make(out: Path, wheels: Path, *, renew: bool) -> dict[str, Any]:
    """Write the bundle into `out`; returns its manifest.

    Raises:
        BundleError: a wheel is not the pinned one, or the bundle is too large.
    """
    pins = json.loads(PINS.read_text("utf-8"))
    folder = wheels / pins["vllm"]
    _fetch(folder, pins)
    if renew:
        pins["wheels"] = {file.name: _digest(file) for file in sorted(folder.glob("*.whl"))}
        PINS.write_text(json.dumps(pins, indent=2) + "\n", "utf-8")
    _require_pinned(folder, pins)
    out.mkdir(parents=True, exist_ok=True)
    site = out / "site"
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir()
    libraries: list[Left] = []
    for name in pins["wheels"]:
        if name.startswith("vllm-"):
            libraries += _lay_vllm(folder / name, site, pins["architecture"])
        else:
            _lay(folder / name, site)
    _pack(site, out / ARCHIVE)
    shutil.rmtree(site)
    manifest = {
        **pins,
        "bytes": (out / ARCHIVE).stat().st_size,
        "archive": _digest(out / ARCHIVE),
        "gpu_code": [{"library": x.library, "kept": x.kept, "zeroed": x.zeroed} for x in libraries],
        "left_out": [*LEFT_OUT, *(f"{name}'s GPU code" for name in EMPTIED)],
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    require_small(manifest["bytes"], tracked_bytes(ROOT))
    return manifest


def require_small(bundle: int, checkout: int) -> None:
    """Check what travels: the bundle, and with it the checkout's tracked files, in bytes.

    Raises:
        BundleError: either is too large.
    """
    for what, size, largest in (
        ("the bundle", bundle, LARGEST_BUNDLE),
        ("bundle and checkout", bundle + checkout, LARGEST_TOGETHER),
    ):
        if size > largest:
            raise BundleError(
                f"{what}: {size / 2**20:.1f} MiB, at most {largest >> 20} MiB may travel; leave "
                "more of vLLM out (LEFT_OUT in tools/gpu/bundle.py)"
            )


def tracked_bytes(root: Path) -> int:
    """Size of the files that git tracks in `root`."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=True
    ).stdout
    files = [root / name.decode() for name in listed.split(b"\0") if name]
    return sum(file.stat().st_size for file in files if file.is_file())


def _fetch(folder: Path, pins: dict[str, Any]) -> None:
    """Have pip download what is not there yet: the pinned files, or new ones by name."""
    pinned = pins["wheels"]
    if pinned and all((folder / name).exists() for name in pinned):
        return
    wanted = [_requirement(name) for name in pinned]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)),
        *("--only-binary=:all:", "--python-version", pins["python"], "--implementation", "cp"),
        *(word for platform in _PLATFORMS for word in ("--platform", platform)),
        *(wanted or [f"vllm=={pins['vllm']}", *NEEDS]),
    ]
    if subprocess.run(command, check=False).returncode:
        raise BundleError(f"pip could not download the wheels into {folder}; see its message above")


def _requirement(wheel: str) -> str:
    name, version, *_ = wheel.split("-")
    return f"{name}=={version}"


def _require_pinned(folder: Path, pins: dict[str, Any]) -> None:
    if not pins["wheels"]:
        raise BundleError(f"{PINS}: no wheel is pinned; run with --renew and review the file")
    for name, digest in pins["wheels"].items():
        file = folder / name
        if not file.exists() or _digest(file) != digest:
            raise BundleError(
                f"{file}: it is not the pinned wheel ({digest[:12]}...); delete it, or review a "
                "new one with --renew"
            )


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _lay_vllm(wheel: Path, site: Path, architecture: int) -> Iterator[Left]:
    """Unpack vLLM without what no run here needs; yields what became of its GPU code."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not _wanted(name):
                continue
            data = archive.read(name)
            library = Path(name).name
            if library in KEPT or library in EMPTIED:
                image = bytearray(data)
                yield prune(library, image, None if library in EMPTIED else architecture)
                data = bytes(image)
            target = site / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def _wanted(name: str) -> bool:
    inside = name.removeprefix("vllm/")
    if name.endswith("/") or any(inside.startswith(part) for part in LEFT_OUT):
        return False
    if name.endswith(".so"):
        return Path(name).name in KEPT + EMPTIED
    return not name.endswith(_SOURCES)


def prune(library: str, image: bytearray, architecture: int | None) -> Left:
    """Overwrite with zeros each embedded GPU image but machine code for `architecture` (None: all).

    `image` is a shared library; its length and offsets stay.
    """
    kept = zeroed = 0
    for kind, arch, begin, length in images(image):
        if kind == _CUBIN and arch == architecture:
            kept += length
        else:
            image[begin : begin + length] = bytes(length)
            zeroed += length
    return Left(library, kept, zeroed)


def images(image: bytes | bytearray) -> Iterator[tuple[int, int, int, int]]:
    """Kind (1: PTX, 2: machine code), architecture, offset and length of every GPU image."""
    at = image.find(_MAGIC)
    while at >= 0:
        header, size = struct.unpack_from("<HQ", image, at + 6)
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, head, length = struct.unpack_from("<HHIQ", image, entry)
            (arch,) = struct.unpack_from("<I", image, entry + 28)
            yield kind, arch, entry + head, length
            entry += head + length
        at = image.find(_MAGIC, end)


def _lay(wheel: Path, site: Path) -> None:
    """Unpack a wheel; what belongs beside site-packages, and debug symbols, are left out."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            beside = ".data/" in name and not any(
                f".data/{part}/" in name for part in ("purelib", "platlib")
            )
            if beside or name.endswith((".a", ".pyi")):
                continue
            file = Path(archive.extract(name, site))
            if file.suffix == ".so" and file.stat().st_size > 10 << 20:
                subprocess.run(["strip", "--strip-unneeded", str(file)], check=True)


def _pack(site: Path, target: Path) -> None:
    # The lowest level: a tenth larger than the usual one, and several times as fast.
    with lzma.open(target, "wb", preset=1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(site, arcname="site")
