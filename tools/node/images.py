"""Images from archives into the node's containerd, each once: what it has already stays."""

import shutil
from pathlib import Path

from . import archive
from .binaries import built
from .configuration import CONTAINERD_SOCKET
from .errors import NodeError
from .layout import Layout
from .namespaces import Namespaces

# Images of one program each, made here. `make images` makes the others.
PREFIX = "localhost/moe-serve-node"
IMPORT_SECONDS = 900


def ctr(space: Namespaces, *words: str | Path, seconds: float = 60) -> str:
    """containerd's own command line, in the namespace that the kubelet uses."""
    return space.run(
        "ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *words, seconds=seconds
    )


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
    _import(layout, space, target, image)
    target.unlink()
    _note(record, identity)
    return image


def ensure_built(layout: Layout, space: Namespaces) -> list[str]:
    """Have every image that `make images` left in the node; the names of those that were new."""
    new = []
    for source in sorted(layout.images.glob("*.oci.tar")):
        identity = source.with_name(source.name.removesuffix(".oci.tar") + ".id")
        if not identity.exists():
            raise NodeError(f"{identity}: absent; run make images again")
        record = layout.containerd / "imported" / source.name
        if not _has(record, identity.read_text("utf-8").strip()):
            print(f"    importing {source.name}: a minute or two for gigabytes", flush=True)
            _forget(space, archive.name_of(source))
            _import(layout, space, source, source.name)
            _note(record, identity.read_text("utf-8").strip())
            new.append(source.name)
    return new


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


def _import(layout: Layout, space: Namespaces, source: Path, what: str) -> None:
    free = shutil.disk_usage(layout.cache).free
    needed = 3 * source.stat().st_size  # the archive's content, and its files unpacked
    if free < needed:
        raise NodeError(
            f"{what}: {needed / 2**30:.1f} GiB of disk are needed to import it, "
            f"{free / 2**30:.1f} GiB are free below {layout.cache}"
        )
    ctr(space, "images", "import", source, seconds=IMPORT_SECONDS)


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
