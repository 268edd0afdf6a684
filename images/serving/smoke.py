"""The image proves itself before it leaves the build: as its own user, without a GPU or a network.

    python -B smoke.py --context CONTEXT --aiter VERSION --gfx TARGET

One line a check; the first that fails ends the build. Runs in the build of Dockerfile.rocm.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent))

from software import of_this_image, packages

_MARKER_ARGUMENTS = {
    "state": "*i64", "constants": "*i64", "published": "i64", "number": "i32", "key": "i64",
    "tokens": "i32", "window": "i32", "window_key": "i64",
    "WINDOW": "constexpr", "SLOTS": "constexpr", "BACKEND": "constexpr",
}  # fmt: skip
_MARKERS = (
    ("start_marker", {"WINDOW": False}),
    ("start_marker", {"WINDOW": True}),
    ("stop_marker", {"SLOTS": 1}),
    ("stop_marker", {"SLOTS": 2}),
)
_FOLDERS = (
    "HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "AITER_JIT_DIR", "HF_HOME",
)  # fmt: skip
# Where the base has no AITER, the pads are asked for the release of the default pin.
_AITER_WHERE_NONE = "0.1.24.post1"


def stop(message: str) -> NoReturn:
    """End the build with one line."""
    sys.exit(f"smoke test: {message}")


def passed(message: str) -> None:
    """One check's line, at once."""
    print(f"smoke test: {message}", flush=True)


def check_entry_points() -> None:
    """The command and both plugins load as their entry points name them."""
    ours = [
        point
        for group in ("console_scripts", "vllm.general_plugins")
        for point in entry_points(group=group)
        if point.value.startswith("moe_serve.")
    ]
    if {"moe-serve", "moe_serve"} - {point.name for point in ours}:
        stop(f"entry points are missing: {[point.name for point in ours]}")
    for point in ours:
        point.load()
    passed(f"entry points load: {', '.join(sorted(point.name for point in ours))}")


def check_pads(context: Path, aiter: str) -> None:
    """The real pad code of this vLLM sends what the contract says, bare and with the plugin.

    vLLM's own loader loads the plugin. AITER is stood in for by what records each call's pads: a
    build has no GPU, and the pads are decided before AITER is called.
    """
    from moe_serve.padding.aiter_eras import aiter_build
    from moe_serve.padding.contract import Call, PaddingPolicy, choose
    from moe_serve.padding.models import BUILT_IN
    from moe_serve.padding.shapes import Parallelism, Quant, shard
    from moe_serve.padding.vllm_eras import vllm_build

    release = of_this_image()["vllm"]
    dims, build = BUILT_IN["gpt-oss-120b"], vllm_build(release)
    align = build.eras[-1].alignment(Quant.W4A16, dims.activation)
    deployments = {f"tp{tp}": Parallelism(tp=tp) for tp in (1, 2, 4, 8)}
    deployments["ep8"] = Parallelism(tp=8, ep=True)
    for policy, flags in ((PaddingPolicy.UPSTREAM, []), (PaddingPolicy.ALIGNED, ["--vllm-loads"])):
        wanted = {}
        for name, parallel in deployments.items():
            part = shard(dims, parallel, align=align)
            sent = choose(Call(part=part, vllm=build, aiter=aiter_build(aiter)), policy)
            wanted[name] = [sent.hidden, sent.intermediate]
        received = ask_vllm(context, aiter, flags)
        if received != wanted:
            stop(f"policy {policy.value}: vLLM {release} sends {received}, the contract {wanted}")
        passed(f"vLLM {release}, AITER {aiter}, policy {policy.value}: {received}")


def ask_vllm(context: Path, aiter: str, flags: list[str]) -> dict[str, object]:
    """The pads that vLLM's own function sends, in a process of its own."""
    here = context / "images/serving"
    with tempfile.TemporaryDirectory() as work:
        path = [str(here / "recording_aiter"), work]
        if "amd-aiter" not in packages():
            info = Path(work) / f"amd_aiter-{aiter}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: amd-aiter\nVersion: {aiter}\n", "utf-8"
            )
        result = subprocess.run(
            [sys.executable, "-B", str(here / "cases.py"), *flags],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "MOE_SERVE_RECORD_DIR": f"{work}/records",
                # The stand-in base has the emulation's plugin too, which has no part here.
                "VLLM_PLUGINS": "moe_serve",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        stop(f"vLLM's pad code could not be asked: {result.stderr.strip()[-1500:]}")
    answer: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return answer


def check_markers(gfx: str) -> None:
    """Triton compiles every marker kernel for the target."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from moe_serve.vllm_plugin.markers import kernels

    for name, constants in _MARKERS:
        kernel = getattr(kernels, name)
        signature = {argument: _MARKER_ARGUMENTS[argument] for argument in kernel.arg_names}
        source = ASTSource(kernel, signature, constexprs={**constants, "BACKEND": "hip"})
        built = build(source, target=GPUTarget("hip", gfx, 64), options={"num_warps": 1})
        if "s_memrealtime" not in str(built.asm["amdgcn"]):
            stop(f"{name} for {gfx} reads no clock")
    passed(f"Triton {version('triton')} compiles {len(_MARKERS)} marker kernels for {gfx}")


def check_command(*words: str) -> None:
    """The command of the image, found on its PATH, exits with 0."""
    result = subprocess.run(["moe-serve", *words], capture_output=True, text=True, check=False)
    if result.returncode:
        stop(f"moe-serve {' '.join(words)}: {(result.stdout + result.stderr).strip()[-1500:]}")
    passed(f"moe-serve {' '.join(words)}:\n{result.stdout.rstrip()}")


def check_nothing_left() -> None:
    """The proof is no part of the image."""
    folders = [Path("/tmp"), Path("/var/cache/moe-serve")]
    left = [str(file) for folder in folders for file in folder.rglob("*") if not file.is_dir()]
    if left:
        stop(f"it left {', '.join(sorted(left)[:5])}")
    passed("nothing of it stays in the image")


def check_user() -> None:
    """Not root, and every cache folder takes a file."""
    if os.getuid() == 0:
        stop("runs as root")
    refused = [name for name in _FOLDERS if not os.access(os.environ[name], os.W_OK)]
    if refused:
        stop(f"UID {os.getuid()} cannot write in {', '.join(refused)}")
    passed(f"UID {os.getuid()}, GID {os.getgid()} writes in its {len(_FOLDERS)} cache folders")


def main() -> None:
    """Run every check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--context", type=Path, required=True)
    parser.add_argument("--aiter", required=True)
    parser.add_argument("--gfx", required=True)
    args = parser.parse_args()

    check_user()
    # From here on nothing of the test may stay in the image.
    with tempfile.TemporaryDirectory() as work:
        os.environ["TMPDIR"] = tempfile.tempdir = work
        for name in _FOLDERS:
            os.environ[name] = f"{work}/{name}"
        check_entry_points()
        check_pads(args.context, _AITER_WHERE_NONE if args.aiter == "none" else args.aiter)
        check_markers(args.gfx)
        check_command("preflight", "--no-gpu")
        tempfile.tempdir = None
    check_nothing_left()


if __name__ == "__main__":
    main()
