"""Build every image that has changed: `make images`.

    python -m images.build [--cache DIR] [--base cpu|default|candidate|REFERENCE] [--twice]

An image is named after what it was made from, so a build with nothing changed builds nothing. Each
has no layer of an earlier build in it but its base. `DIR/images` gets `moe-serve.oci.tar` and
`moe-serve-ops.oci.tar`, each with an `.id` beside it, which changes when the image does.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import moe_serve
from images import pins
from images.engine import EPOCH, Engine, ImageError, Recipe, find_engine

ROOT = Path(__file__).parents[1]
HERE = ROOT / "images"
OPS_MEGABYTES = 235  # that the small image may hold beyond its base
# What the Dockerfiles of the repository see: the same names as in the repository, and no more.
CONTEXT = ("Dockerfile.rocm", "images/serving", "images/ops", "images/vocabulary", "images/aiter",
           "tests/vllm_plugin/cases.py", "tests/vllm_plugin/recording_aiter")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image by its name and by what it was made from."""

    name: str
    key: str

    @property
    def tag(self) -> str:
        """What a person calls it."""
        return f"localhost/{self.name}:dev"

    @property
    def exact(self) -> str:
        """What these inputs are called."""
        return f"localhost/{self.name}:{self.key}"


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


class Build:
    """All images, in the order in which they need each other."""

    def __init__(self, engine: Engine, cache: Path) -> None:
        self._engine = engine
        self._place = cache / "images"
        self._context = self._place / "context"

    def make(self, image: Image, recipe: Recipe) -> Image:
        """Build the image unless these inputs were built before."""
        begun = time.monotonic()
        there = self._engine.has(image.exact)
        if not there:
            self._engine.build(recipe, image.exact)
        self._engine.tag(image.exact, image.tag)
        took = "as it was" if there else f"built in {time.monotonic() - begun:.0f} s"
        print(f"==> {image.tag}  {image.key}  {took}", flush=True)
        return image

    def debian(self) -> Image:
        """Debian with Python."""
        image = Image(
            name="moe-serve-debian",
            key=key_of([HERE / "dev/rootfs", HERE / "dev/debian.Dockerfile"], EPOCH),
        )
        archive = self._place / "rootfs" / image.key / "rootfs.tar"
        if not self._engine.has(image.exact) and not archive.exists():
            make_rootfs(archive)
        recipe = Recipe(
            dockerfile=HERE / "dev/debian.Dockerfile", context=archive.parent, arguments={}
        )
        return self.make(image, recipe)

    def base_cpu(self, root: Image) -> Image:
        """Real vLLM for the CPU."""
        names = ("Dockerfile", "install", "serving.lock.txt", "versions.py")
        key = key_of([HERE / "dev" / name for name in names], root.key, EPOCH)
        recipe = Recipe(
            dockerfile=HERE / "dev/Dockerfile",
            context=HERE / "dev",
            arguments={"ROOT_IMAGE": root.exact},
        )
        return self.make(Image(name="moe-serve-base-cpu", key=key), recipe)

    def stage(self) -> None:
        """Lay the build's context out: the wheel of this source, and what the Dockerfiles name."""
        shutil.rmtree(self._context, ignore_errors=True)
        for name in CONTEXT:
            source, target = ROOT / name, self._context / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        make_wheel(self._context / "dist")

    def ops(self, base: str, base_id: str, name: str) -> Image:
        """The small image."""
        labels = {"MOE_SERVE_VERSION": moe_serve.__version__, "REVISION": revision()}
        labels |= {"BASE_NAME": name, "BASE_DIGEST": base_id}
        inputs = [self._context / "images/ops", self._context / "dist"]
        key = key_of(inputs, base_id, json.dumps(labels), EPOCH)
        recipe = Recipe(
            dockerfile=HERE / "ops/Dockerfile",
            context=self._context,
            arguments={"BASE_IMAGE": base, **labels},
        )
        return self.make(Image(name="moe-serve-ops", key=key), recipe)

    def serving(self, base: str, base_id: str, name: str, aiter_wheel: str) -> Image:
        """The serving image, over the stand-in or over AMD's."""
        facts = json.loads(self._engine.ask(base, HERE / "serving/software.py"))
        vocabulary = self._context / "images/vocabulary" / arguments()["VOCABULARY"]
        values = {f"{key.upper()}_VERSION": value for key, value in facts.items()}
        values |= {
            "MOE_SERVE_VERSION": moe_serve.__version__,
            "REVISION": revision(),
            "BASE_NAME": name,
            "BASE_DIGEST": base_id,
            "AITER_WHEEL": aiter_wheel,
            "VOCABULARY_STATE": vocabulary.stem if vocabulary.is_file() else "absent",
        }
        key = key_of([self._context], base_id, json.dumps(values, sort_keys=True), EPOCH)
        recipe = Recipe(
            dockerfile=self._context / "Dockerfile.rocm",
            context=self._context,
            arguments={"BASE_IMAGE": base, **values},
        )
        return self.make(Image(name="moe-serve", key=key), recipe)

    def export(self, image: Image) -> None:
        """Leave the image as an archive, unless it is there already."""
        target = self._place / f"{image.name}.oci.tar"
        identity = target.with_name(f"{image.name}.id")
        wanted = f"{self._engine.describe(image.exact)['id']}\n"
        if target.exists() and identity.exists() and identity.read_text("utf-8") == wanted:
            return
        identity.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        unfinished = target.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        self._engine.export(image.tag, unfinished)
        unfinished.replace(target)
        identity.write_text(wanted, "utf-8")
        print(f"==> {target}  {target.stat().st_size / 1e6:.0f} MB", flush=True)


def require_equal(image: Image, first: list[str], second: list[str]) -> None:
    """Two builds of the same inputs have the same layers.

    Raises:
        ImageError: they have not.
    """
    if first != second:
        raise ImageError(f"{image.name}: two builds differ: {first} and {second}")
    print(f"==> {image.name}: built twice, the same layers: {' '.join(first)}", flush=True)


def arguments() -> dict[str, str]:
    """The defaults of Dockerfile.rocm."""
    return pins.arguments((ROOT / "Dockerfile.rocm").read_text("utf-8"))


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


def make_wheel(folder: Path) -> None:
    """The wheel of this source; two of the same source are equal."""
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "--out-dir", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    if subprocess.run([*command, str(ROOT)], env=environment, check=False).returncode:
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


def main() -> int:
    """Build what has changed; exit 2 with one line if something is missing or fails."""
    parser = argparse.ArgumentParser(prog="python -m images.build")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache")
    parser.add_argument(
        "--base", default="cpu", metavar="BASE",
        help="of the serving image: cpu (the stand-in), a base of images/pins.yaml, or a reference",
    )  # fmt: skip
    parser.add_argument("--aiter-wheel", default="", metavar="NAME", help="a file in images/aiter")
    parser.add_argument("--twice", action="store_true", help="build both again and compare layers")
    args = parser.parse_args()
    try:
        build_all(args)
    except ImageError as error:
        sys.stderr.write(f"images.build: {error}\n")
        return 2
    return 0


def build_all(args: argparse.Namespace) -> None:
    """Every image, then the archives."""
    cache = args.cache.resolve()
    (cache / "images").mkdir(parents=True, exist_ok=True)
    engine = find_engine(cache / "images")
    build = Build(engine, cache)
    root = build.debian()
    if args.base == "cpu":
        base, name = (cpu := build.base_cpu(root)).exact, cpu.tag
    else:
        pinned = pins.load(pins.PINS.read_text("utf-8"))
        base = pins.reference(pinned, args.base) if args.base in pinned["bases"] else args.base
        name = base.partition("@")[0]
        engine.pull(base)
    build.stage()
    digest = engine.describe(root.exact)["id"]
    ops = build.ops(root.exact, digest, root.tag)
    base_id = base.partition("@")[2] or engine.describe(base)["id"]
    serving = build.serving(base, base_id, name, args.aiter_wheel)
    if args.twice:
        for image, make in (
            (ops, lambda: build.ops(root.exact, digest, root.tag)),
            (serving, lambda: build.serving(base, base_id, name, args.aiter_wheel)),
        ):
            first = engine.describe(image.exact)["layers"]
            for tag in (image.exact, image.tag):
                engine.remove(tag)
            make()
            require_equal(image, first, engine.describe(image.exact)["layers"])
    for image in (ops, serving):
        build.export(image)


if __name__ == "__main__":
    sys.exit(main())
