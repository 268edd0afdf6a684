"""An OCI image of one static program, written as an archive: nothing but the program is in it.

The same program gives the same bytes, so an image's digest says whether a node has it already.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
NOBODY = 65532


def write(program: Path, image: str, target: Path) -> str:
    """Write the image `image` of `program` (at `/bin/NAME`, its entry point) to `target`.

    Returns:
        The digest of its manifest.
    """
    layer = _tar(
        {
            "bin/": (0o755, b""),
            f"bin/{program.name}": (0o755, program.read_bytes()),
            "tmp/": (0o1777, b""),
        }
    )
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/bin/{program.name}"], "User": f"{NOBODY}:{NOBODY}"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(_LAYER, layer)],
        }
    )
    named = {
        **_descriptor(_MANIFEST, manifest),
        "annotations": {"org.opencontainers.image.ref.name": image},
    }
    index = _json({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [named]})
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_tar({name: (0o644, content) for name, content in files.items()}))
    return _digest(manifest)


def _tar(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A tar of `files`, whose names end in "/" where they are folders; no times, no owners."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (mode, content) in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode, entry.size = mode, len(content)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(blob), "size": len(blob)}
