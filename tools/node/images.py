"""Images into the node's containerd, each once: what it has already stays."""

import shutil
from pathlib import Path

from images import layout as image_layout

from . import archive
from .binaries import built
from .configuration import CONTAINERD_SOCKET
from .errors import NodeError
from .layout import Layout
from .namespaces import Namespaces

# Images of one program each, made here. `make images` makes the others.
PREFIX = "localhost/moe-serve-node"
IMPORT_SECONDS = 900
_CTR = ("--address", CONTAINERD_SOCKET, "--namespace", "k8s.io")
_IMPORT_FILES = (
    'folder=$1; shift; tar --create --directory "$folder" "$@" | '
    f"ctr {' '.join(_CTR)} images import -"
)


def ctr(space: Namespaces, *words: str | Path, seconds: float = 60) -> str:
    """Containerd's own command line, in the namespace that the kubelet uses."""
    return space.run("ctr", *_CTR, *words, seconds=seconds)


def ensure_program(layout: Layout, space: Namespaces, name: str) -> str:
    """Have the image of the program `name` in the node; its name."""
    program = built(layout, name)
    image = f"{PREFIX}/{name}:built"
    record = layout.containerd / "imported" / name
    identity = program.parent.name
    if _has(record, identity):
        return image
    target = layout.state / f"{name}.oci.tar"
    archive.write(program, image, target)
    _require_room(layout, image, target.stat().st_size)
    ctr(space, "images", "import", target, seconds=IMPORT_SECONDS)
    target.unlink()
    _note(record, identity)
    return image


def ensure_built(layout: Layout, space: Namespaces) -> list[str]:
    """Have every image that `make images` left in the node; the names of those that were new."""
    new = []
    for source in sorted(layout.images.glob("*.oci")):
        identity = source.with_suffix(".id")
        if not identity.exists():
            raise NodeError(f"{identity}: absent; run make images again")
        record = layout.containerd / "imported" / source.name
        if not _has(record, identity.read_text("utf-8").strip()):
            print(f"    importing {source.name}: a minute for gigabytes", flush=True)
            _import_layout(layout, space, source)
            _note(record, identity.read_text("utf-8").strip())
            new.append(source.name)
    return new


def _import_layout(layout: Layout, space: Namespaces, source: Path) -> None:
    """Have the image of an OCI image layout in the node; of its blobs only those that it lacks.

    Raises:
        NodeError: the folder is no such layout, the disk is too small, or containerd refuses.
    """
    blobs = image_layout.blobs(source)
    held = set(ctr(space, "content", "ls", "-q").split())
    missing = [path for digest, path in blobs.items() if digest not in held]
    try:
        name = image_layout.name_of(source)
    except ValueError as error:
        raise NodeError(f"{error}; run make images again") from error
    if len(missing) == len(blobs):  # nothing in common with an older image of this name
        _forget(space, name)
    _require_room(layout, source.name, sum(path.stat().st_size for path in missing))
    names = ["oci-layout", "index.json", *(str(path.relative_to(source)) for path in missing)]
    space.run(
        *("bash", "-o", "pipefail", "-c", _IMPORT_FILES, "import"),
        source,
        *names,
        seconds=IMPORT_SECONDS,
    )


def _forget(space: Namespaces, image: str) -> None:
    """Give an older image's disk back before the new one needs it; a pod that runs it runs on."""
    if image in ctr(space, "images", "ls", "-q").split():
        ctr(space, "images", "rm", "--sync", image, seconds=300)


def require(space: Namespaces, image: str) -> None:
    """Raise unless the node has the image.

    Raises:
        NodeError: it is absent.
    """
    if image not in ctr(space, "images", "ls", "-q").split():
        raise NodeError(f"{image}: not in the node; run make images, then make cluster")


def _require_room(layout: Layout, what: str, size: int) -> None:
    free = shutil.disk_usage(layout.cache).free
    needed = 2 * size  # the layers, and their files unpacked
    if free < needed:
        raise NodeError(
            f"{what}: {needed / 2**30:.1f} GiB of disk are needed to import it, "
            f"{free / 2**30:.1f} GiB are free below {layout.cache}"
        )


def _has(record: Path, identity: str) -> bool:
    return record.exists() and record.read_text("utf-8") == identity


def _note(record: Path, identity: str) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(identity)


def remove_containers(space: Namespaces) -> None:
    """Take from containerd what an earlier node left in it: containers, not images."""
    for task in ctr(space, "tasks", "ls", "-q").split():
        ctr(space, "tasks", "rm", "--force", task)
    if containers := ctr(space, "containers", "ls", "-q").split():
        ctr(space, "containers", "rm", *containers)
