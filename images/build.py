"""Build every image that has changed: `make images`.

    python -m images.build [--cache DIR] [--base cpu|default|candidate|REFERENCE] [--twice]

An image is named after what it was made from, so a build with nothing changed builds nothing. Each
has no layer of an earlier build in it but its base. `DIR/images` gets `moe-serve.oci` and
`moe-serve-ops.oci`, which are OCI image layouts, each with an `.id` beside it, which changes when
the image does.
"""

import argparse
import fcntl
import json
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import moe_serve
from images import layout, pins
from images.engine import EPOCH, Engine, ImageError, Recipe, find_engine
from images.inputs import (
    HERE,
    ROOT,
    arguments,
    free_gigabytes,
    key_of,
    make_rootfs,
    make_wheel,
    require_disk,
    revision,
    stage,
)

# GB that must be free before a build: what it leaves, and the copies that it makes on the way.
DISK = {"moe-serve-base-cpu": 16.0}
SOME_DISK = 4.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What an image is built over: how to reach it, its name, and what it is exactly."""

    image: str
    name: str
    digest: str


class Build:
    """All images, in the order in which they need each other."""

    def __init__(self, engine: Engine, cache: Path) -> None:
        self._engine = engine
        self._place = cache / "images"
        self.context = self._place / "context"

    def make(self, image: Image, recipe: Recipe) -> Image:
        """Build the image unless these inputs were built before."""
        begun = time.monotonic()
        there = self._engine.has(image.exact)
        if not there:
            self.make_room(image)
            self._engine.build(recipe, image.exact)
        self._engine.tag(image.exact, image.tag)
        took = "as it was" if there else f"built in {time.monotonic() - begun:.0f} s"
        print(f"==> {image.tag}  {image.key}  {took}", flush=True)
        return image

    def make_room(self, image: Image) -> None:
        """Forget earlier builds of this image where the disk is short: others may use them.

        Raises:
            ImageError: that was not enough.
        """
        needed = DISK.get(image.name, SOME_DISK)
        if free_gigabytes(self._place) < needed:
            for tag in self._engine.tags(f"localhost/{image.name}"):
                self._engine.remove(f"localhost/{image.name}:{tag}")
        require_disk(self._place, needed)

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

    def stand_in(self, base: Image) -> Image:
        """The base for the CPU with the emulation of AITER, which no release's image has."""
        context = self._place / "stand-in"
        shutil.rmtree(context, ignore_errors=True)
        make_wheel(context / "dist", ROOT / "emulation")
        recipe = Recipe(
            dockerfile=HERE / "dev/emulation.Dockerfile",
            context=context,
            arguments={"BASE_IMAGE": base.exact},
        )
        key = key_of([recipe.dockerfile, context], base.key, EPOCH)
        return self.make(Image(name="moe-serve-base-stand-in", key=key), recipe)

    def ops(self, base: Base) -> Image:
        """The small image."""
        labels = {"MOE_SERVE_VERSION": moe_serve.__version__, "REVISION": revision()}
        labels |= {"BASE_NAME": base.name, "BASE_DIGEST": base.digest}
        inputs = [self.context / "images/ops", self.context / "dist"]
        key = key_of(inputs, base.digest, json.dumps(labels), EPOCH)
        recipe = Recipe(
            dockerfile=HERE / "ops/Dockerfile",
            context=self.context,
            arguments={"BASE_IMAGE": base.image, **labels},
        )
        return self.make(Image(name="moe-serve-ops", key=key), recipe)

    def serving(self, base: Base, aiter_wheel: str) -> Image:
        """The serving image, over the stand-in or over AMD's."""
        facts = json.loads(self._engine.ask(base.image, HERE / "serving/software.py"))
        vocabulary = self.context / "images/vocabulary" / arguments()["VOCABULARY"]
        values = {f"{key.upper()}_VERSION": value for key, value in facts.items()}
        values |= {
            "MOE_SERVE_VERSION": moe_serve.__version__,
            "REVISION": revision(),
            "BASE_NAME": base.name,
            "BASE_DIGEST": base.digest,
            "AITER_WHEEL": aiter_wheel,
            "VOCABULARY_STATE": vocabulary.stem if vocabulary.is_file() else "absent",
        }
        key = key_of([self.context], base.digest, json.dumps(values, sort_keys=True), EPOCH)
        recipe = Recipe(
            dockerfile=self.context / "Dockerfile.rocm",
            context=self.context,
            arguments={"BASE_IMAGE": base.image, **values},
        )
        return self.make(Image(name="moe-serve", key=key), recipe)

    def export(self, image: Image) -> None:
        """Leave the image as an OCI image layout, unless it is there already."""
        target = self._place / f"{image.name}.oci"
        identity = target.with_name(f"{image.name}.id")
        wanted = f"{self._engine.describe(image.exact)['id']}\n"
        if target.exists() and identity.exists() and identity.read_text("utf-8") == wanted:
            return
        identity.unlink(missing_ok=True)
        begun = time.monotonic()
        self._engine.export(image.tag, target)
        layout.forget_unused(target)
        identity.write_text(wanted, "utf-8")
        size = sum(path.stat().st_size for path in layout.blobs(target).values())
        print(f"==> {target}  {size / 1e6:.0f} MB  in {time.monotonic() - begun:.0f} s", flush=True)


def require_equal(image: Image, first: list[str], second: list[str]) -> None:
    """Two builds of the same inputs have the same layers.

    Raises:
        ImageError: they have not.
    """
    if first != second:
        raise ImageError(f"{image.name}: two builds differ: {first} and {second}")
    print(f"==> {image.name}: built twice, the same layers: {' '.join(first)}", flush=True)


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
    place = args.cache / "images"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("w") as lock:
            # Several checkouts may share a cache; one of them builds at a time.
            fcntl.flock(lock, fcntl.LOCK_EX)
            build_all(args)
    except (ImageError, OSError) as error:
        sys.stderr.write(f"images.build: {error}\n")
        return 2
    return 0


def bases(engine: Engine, build: Build, wanted: str) -> tuple[Base, Base]:
    """What the small and the serving image are built over; fetched or built."""
    if wanted == "cpu":
        root = build.debian()
        serving = build.stand_in(build.base_cpu(root))
        return _built(engine, root), _built(engine, serving)
    pinned = pins.load(pins.PINS.read_text("utf-8"))
    serving = pins.reference(pinned, wanted) if wanted in pinned["bases"] else wanted
    return _fetched(engine, pinned["ops_base"]), _fetched(engine, serving)


def _built(engine: Engine, image: Image) -> Base:
    return Base(image=image.exact, name=image.tag, digest=engine.describe(image.exact)["id"])


def _fetched(engine: Engine, image: str) -> Base:
    engine.pull(image)
    name, _, digest = image.partition("@")
    return Base(image=image, name=name, digest=digest or engine.describe(image)["id"])


def build_all(args: argparse.Namespace) -> None:
    """Every image, then the folders that a node imports."""
    cache = args.cache.resolve()
    engine = find_engine(cache / "images")
    engine.forget_unfinished()
    build = Build(engine, cache)
    small, big = bases(engine, build, args.base)
    stage(build.context)
    makers = (partial(build.ops, small), partial(build.serving, big, args.aiter_wheel))
    images = [make() for make in makers]
    if args.twice:
        for image, make in zip(images, makers, strict=True):
            first = engine.describe(image.exact)["layers"]
            for tag in (image.exact, image.tag):
                engine.remove(tag)
            make()
            require_equal(image, first, engine.describe(image.exact)["layers"])
    for image in images:
        build.export(image)


if __name__ == "__main__":
    sys.exit(main())
