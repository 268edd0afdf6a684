"""OCI image layouts: what is in them, and what an export over an older one leaves."""

import json
from pathlib import Path

import pytest

from images import layout

KIND = "application/vnd.oci.image.{}.v1+json"


def blob(folder: Path, name: str, content: object = "") -> dict[str, str]:
    path = folder / "blobs/sha256" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return {"digest": f"sha256:{name}", "mediaType": "application/octet-stream"}


def image(folder: Path, *, layers: list[str], config: str) -> None:
    """A layout whose index has one image, with these layers."""
    manifest = {"config": blob(folder, config), "layers": [blob(folder, name) for name in layers]}
    named = {
        **blob(folder, f"manifest-{config}", manifest),
        "mediaType": KIND.format("manifest"),
        "annotations": {layout.NAME: "localhost/it:dev"},
    }
    (folder / "index.json").write_text(json.dumps({"manifests": [named]}))


def test_an_export_over_an_older_image_leaves_the_newer_ones_blobs_alone(tmp_path: Path) -> None:
    image(tmp_path, layers=["base", "old"], config="first")
    older = json.loads((tmp_path / "index.json").read_text())["manifests"][0]
    del older["annotations"]
    image(tmp_path, layers=["base", "new"], config="second")
    newer = json.loads((tmp_path / "index.json").read_text())["manifests"][0]
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [older, newer]}))
    (tmp_path / "oci-put-blob123").write_text("cut off")

    layout.forget_unused(tmp_path)

    assert set(layout.blobs(tmp_path)) == {
        f"sha256:{name}" for name in ("base", "new", "second", "manifest-second")
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blobs", "index.json"]
    assert layout.name_of(tmp_path) == "localhost/it:dev"


@pytest.mark.parametrize("text", ["", "{}", '{"manifests": []}', '{"manifests": [{}]}'])
def test_a_folder_that_is_no_layout_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)

    with pytest.raises(ValueError, match=r": no OCI image layout with one named image$"):
        layout.name_of(tmp_path)
