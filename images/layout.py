"""OCI image layouts: the folders that `make images` leaves, and what is in them.

The layout is that of https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "org.opencontainers.image.ref.name"


def name_of(folder: Path) -> str:
    """The name of the one image in a layout.

    Raises:
        ValueError: the folder is no layout of one named image.
    """
    try:
        (image,) = json.loads((folder / "index.json").read_text("utf-8"))["manifests"]
        name: str = image["annotations"][NAME]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{folder}: no OCI image layout with one named image") from error
    return name


def blobs(folder: Path) -> dict[str, Path]:
    """The files of a layout's blobs, by digest (`sha256:...`)."""
    return {
        f"{path.parent.name}:{path.name}": path
        for path in sorted(folder.glob("blobs/*/*"))
        if path.is_file()
    }


def forget_unused(folder: Path) -> None:
    """Leave of a layout the newest named image: remove other images and what is theirs alone.

    An export over an older one leaves the older manifest, its configuration and its layers; one
    that was cut off leaves a part of a blob beside the index.
    """
    for part in folder.glob("oci-put-blob*"):
        part.unlink()
    place = folder / "index.json"
    index = json.loads(place.read_text("utf-8"))
    # An export over an older image takes the name from it, and leaves it in the index.
    index["manifests"] = [
        each for each in index["manifests"] if NAME in each.get("annotations", {})
    ][-1:]
    place.write_text(json.dumps(index), "utf-8")
    used = set(_reached(folder, index))
    for digest, path in blobs(folder).items():
        if digest not in used:
            path.unlink()


def _reached(folder: Path, document: dict[str, Any]) -> Iterator[str]:
    """The digests that an index or a manifest refers to, directly or through another one."""
    for each in (
        *document.get("manifests", ()), *document.get("layers", ()), document.get("config"),
    ):  # fmt: skip
        if each is None:
            continue
        yield each["digest"]
        if "manifest" in each["mediaType"] or "index" in each["mediaType"]:
            algorithm, _, name = each["digest"].partition(":")
            path = folder / "blobs" / algorithm / name
            with contextlib.suppress(FileNotFoundError):
                yield from _reached(folder, json.loads(path.read_text("utf-8")))
