"""Where the stages run: the unpacked bundle, the plugins' entry points and the environment."""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from moe_serve_emulation import STANDIN
from moe_serve_emulation.cuda import STANDIN as CUDA_STANDIN

from tools.gpu.bundle import ARCHIVE, MANIFEST, ROOT, BundleError

WORK = Path(os.environ.get("MOE_SERVE_GPU_WORK", "/tmp/moe-serve-gpu"))
SITE = WORK / "site"
EMULATION = "MOE_SERVE_EMULATE_AITER_CUDA"
_ENTRY_POINTS = {
    "moe_serve": "moe_serve.vllm_plugin:register",
    "moe_serve_emulation_cuda": "moe_serve_emulation.cuda.seam:register",
}


def prepare(bundle: Path | None) -> None:
    """Unpack the bundle once (None: vLLM is installed here), and lay the plugins beside it.

    Raises:
        BundleError: there is no bundle, or it is for another Python or PyTorch.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    done = WORK / "unpacked.json"
    if bundle is not None:
        manifest = _manifest(bundle)
        if not done.exists() or done.read_text("utf-8") != json.dumps(manifest["archive"]):
            _require_fitting(manifest)
            shutil.rmtree(SITE, ignore_errors=True)
            with tarfile.open(bundle / ARCHIVE) as tar:
                tar.extractall(WORK, filter="tar")
            done.write_text(json.dumps(manifest["archive"]), "utf-8")
    _lay_plugins()


def _manifest(bundle: Path) -> Mapping[str, str]:
    try:
        found: Mapping[str, str] = json.loads((bundle / MANIFEST).read_text("utf-8"))
    except OSError as error:
        raise BundleError(f"--bundle {bundle}: {error.strerror}; run `make gpu-bundle`") from error
    return found


def _require_fitting(manifest: Mapping[str, str]) -> None:
    import torch

    here = f"{sys.version_info.major}.{sys.version_info.minor}", torch.__version__.split("+")[0]
    wanted = manifest["python"], manifest["torch"]
    if here != wanted:
        raise BundleError(
            f"the bundle is for Python {wanted[0]} with PyTorch {wanted[1]}, here are {here[0]} "
            f"with {here[1]}: its compiled code would not load"
        )


def _lay_plugins() -> None:
    """The stand-in for AITER (the CPU's, with the GPU's modules over it) and both entry points."""
    shutil.copytree(STANDIN, SITE, dirs_exist_ok=True)
    shutil.copytree(CUDA_STANDIN, SITE, dirs_exist_ok=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for name, target in _ENTRY_POINTS.items():
        folder = SITE / f"{name}-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        (folder / "METADATA").write_text(text, "utf-8")
        entry = f"[vllm.general_plugins]\n{name} = {target}\n"
        (folder / "entry_points.txt").write_text(entry, "utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Have the GPU alone until the end of the block: other stages' work waits for it."""
    with (WORK / "quiet.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with what vLLM needs on a machine without a network."""
    paths = [SITE, ROOT, ROOT / "emulation", ROOT / "demo"]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_USE_DEEP_GEMM": "0",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        EMULATION: "cktile",
        **more,
    }
