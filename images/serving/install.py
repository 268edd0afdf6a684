"""Install moe-serve into a serving image, and prove that nothing else was touched.

Runs as root in the build of Dockerfile.rocm, with the build context mounted. Standard library only.
"""

import argparse
import compileall
import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent))

from software import of_this_image, packages

CACHES = Path("/var/cache/moe-serve")
CACHE_FOLDERS = ("home", "xdg", "vllm", "triton", "inductor", "aiter", "huggingface")
VOCABULARY = Path("/opt/moe-serve/vocabulary")
LABELS = ("vllm", "rocm", "torch", "triton", "aiter")


def stop(message: str) -> NoReturn:
    """End the build with one line."""
    sys.exit(f"Dockerfile.rocm: {message}")


def only(folder: Path, pattern: str) -> Path:
    """The one file of that name."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        stop(f"{folder.name}/{pattern}: {names}; exactly one is needed (make wheel makes it)")
    return found[0]


def pip_install(wheel: Path, *flags: str) -> None:
    """One wheel, without what it names and without a network."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-cache-dir", "--no-compile", "--disable-pip-version-check"]
    command += ["--root-user-action=ignore", "--break-system-packages", *flags, str(wheel)]
    if subprocess.run(command, check=False).returncode:
        stop(f"pip could not install {wheel.name}")


def require_unchanged(before: dict[str, str], after: dict[str, str], allowed: set[str]) -> None:
    """Every distribution but the allowed ones is what it was."""
    changed = [
        f"{name} {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in sorted((before.keys() | after.keys()) - allowed)
        if before.get(name) != after.get(name)
    ]
    if changed:
        stop(f"the installation changed what the base brought: {', '.join(changed)}")


def require_labels(claimed: dict[str, str], found: dict[str, str]) -> None:
    """The labels say what the base holds."""
    wrong = [
        f"{name.upper()}_VERSION={claimed[name]}, the base has {found[name]}"
        for name in LABELS
        if claimed[name] != found[name]
    ]
    if wrong:
        stop(f"{'; '.join(wrong)}: build with `python -m images.build`, or pass these arguments")


def bake_vocabulary(source: Path, sha256: str, state: str) -> None:
    """Put harmony's vocabulary where TIKTOKEN_ENCODINGS_BASE looks, if it is there and right."""
    VOCABULARY.mkdir(parents=True, exist_ok=True)
    found = source.is_file()
    if found != (state != "absent"):
        stop(
            f"VOCABULARY_STATE={state}, but images/vocabulary/{source.name} is "
            f"{'there' if found else 'absent'}: the label has to say what the image holds"
        )
    if not found:
        return
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != sha256:
        stop(f"images/vocabulary/{source.name}: sha256 {digest}, wanted {sha256}")
    shutil.copyfile(source, VOCABULARY / source.name)
    (VOCABULARY / source.name).chmod(0o644)


def make_caches() -> None:
    """Writable for the image's user and for any other: all of them are in group 0."""
    for folder in (CACHES, *(CACHES / name for name in CACHE_FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, 2000, 0)
        folder.chmod(0o2775)


def compile_package() -> None:
    """Byte code that is checked against nothing: a layer keeps no timestamp that Python saw."""
    package = Path(sysconfig.get_path("purelib")) / "moe_serve"
    if not package.is_dir():
        stop(f"{package} is absent after the installation")
    compileall.compile_dir(
        package, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, force=True
    )


def main() -> None:
    """Check the labels, install, compare, prepare the folders."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--context", type=Path, required=True)
    for name in LABELS:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--aiter-wheel", default="")
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--vocabulary-sha256", required=True)
    parser.add_argument("--vocabulary-state", required=True)
    args = parser.parse_args()

    require_labels(vars(args), of_this_image())
    before = packages()
    allowed = {"moe-serve"}
    pip_install(only(args.context / "dist", "moe_serve-*.whl"))
    if args.aiter_wheel:
        allowed.add("amd-aiter")
        pip_install(args.context / "images/aiter" / args.aiter_wheel, "--force-reinstall")
    require_unchanged(before, packages(), allowed)
    bake_vocabulary(
        args.context / "images/vocabulary" / args.vocabulary,
        args.vocabulary_sha256,
        args.vocabulary_state,
    )
    make_caches()
    compile_package()
    print(f"moe-serve {packages()['moe-serve']}: {len(before)} other distributions as they were")


if __name__ == "__main__":
    main()
