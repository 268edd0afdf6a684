"""What builds, runs and exports images: buildah where it is installed, else Docker."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# Every file of every layer gets this time, so that two builds of the same inputs are equal.
EPOCH = "1735689600"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class ImageError(Exception):
    """An image cannot be built: what is missing or what failed, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One build: a Dockerfile in a context, with its arguments."""

    dockerfile: Path
    context: Path
    arguments: Mapping[str, str]


class Engine(Protocol):
    """What the build needs of buildah or Docker."""

    def forget_unfinished(self) -> None:
        """Give back what a build that was cut off has left."""

    def has(self, tag: str) -> bool:
        """Whether the image is there."""

    def tags(self, name: str) -> list[str]:
        """Every tag that images of this name have here."""

    def tag(self, source: str, target: str) -> None:
        """Give an image another name."""

    def remove(self, tag: str) -> None:
        """Take a name away, and the image with its last name."""

    def pull(self, tag: str) -> None:
        """Fetch an image from its registry."""

    def build(self, recipe: Recipe, tag: str) -> None:
        """Build, with no layer taken from an earlier build."""

    def describe(self, tag: str) -> dict[str, Any]:
        """`id`, `layers` (digests of their contents) and `config`, in Docker's words."""

    def ask(self, tag: str, program: Path) -> str:
        """What a Python program prints when it runs in the image."""

    def export(self, tag: str, target: Path) -> None:
        """Write the image into the folder `target`, an OCI image layout.

        Layers that are there already, uncompressed, are left as they are.
        """


def run(command: Sequence[str], *, show: bool = False, text: str | None = None) -> str:
    """Run a command; returns what it printed, or shows it as it comes.

    Raises:
        ImageError: it failed; the message has the last line that it printed.
    """
    result = subprocess.run(
        command,
        input=text,
        stdout=None if show else subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
        text=True,
        check=False,
    )
    if result.returncode:
        said = "its output is above" if show else (result.stderr.strip().splitlines() or [""])[-1]
        raise ImageError(f"{' '.join(command[:3])} ... failed (exit {result.returncode}): {said}")
    return result.stdout or ""


def _build_flags(recipe: Recipe) -> list[str]:
    flags = [f"--build-arg={name}={value}" for name, value in sorted(recipe.arguments.items())]
    if CERTIFICATES.is_file():
        flags.append(f"--secret=id=ca,src={CERTIFICATES}")
    return [*flags, "--file", str(recipe.dockerfile)]


class Buildah:
    """buildah as root, with a store of its own below the cache: no daemon, no namespaces."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._command = ["buildah", "--storage-driver", "overlay"]
        self._command += ["--root", str(store / "storage"), "--runroot", str(store / "run")]

    def _run(self, *words: str, show: bool = False, text: str | None = None) -> str:
        return run([*self._command, *words], show=show, text=text)

    def forget_unfinished(self) -> None:
        self._run("rm", "--all")

    def has(self, tag: str) -> bool:
        words = [*self._command, "inspect", "--type", "image", tag]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def tags(self, name: str) -> list[str]:
        lines = self._run("images", "--format", "{{.Name}}:{{.Tag}}").split()
        return [line.removeprefix(f"{name}:") for line in lines if line.startswith(f"{name}:")]

    def tag(self, source: str, target: str) -> None:
        self._run("tag", source, target)

    def remove(self, tag: str) -> None:
        self._run("rmi", tag)

    def pull(self, tag: str) -> None:
        self._run("pull", "--quiet", tag)

    def build(self, recipe: Recipe, tag: str) -> None:
        # Docker's format, since OCI's has no HEALTHCHECK.
        words = ["bud", "--isolation", "chroot", "--format", "docker", "--pull-never"]
        words += ["--timestamp", EPOCH, "--tag", tag, *_build_flags(recipe), str(recipe.context)]
        self._run(*words, show=True)

    def describe(self, tag: str) -> dict[str, Any]:
        found = json.loads(self._run("inspect", "--type", "image", tag))
        layers = found["OCIv1"]["rootfs"]["diff_ids"]
        return {"id": found["FromImageID"], "layers": layers, "config": found["Docker"]["config"]}

    def ask(self, tag: str, program: Path) -> str:
        name = self._run("from", "--pull-never", tag).strip()
        try:
            words = ["run", "--isolation", "chroot", name, "--", "python3", "-B", "-"]
            return self._run(*words, text=program.read_text("utf-8"))
        finally:
            self._run("rm", name)

    def export(self, tag: str, target: Path) -> None:
        # Uncompressed layers keep their digest, so those of the base are written once. Pushed by
        # buildah itself they are always compressed.
        words = ["copy", "--quiet", "--format", "oci", "--dest-oci-accept-uncompressed-layers"]
        source = f"containers-storage:[overlay@{self._store}/storage+{self._store}/run]{tag}"
        run(["skopeo", *words, source, f"oci:{target}:{tag}"])


class Docker:
    """Docker with BuildKit."""

    def forget_unfinished(self) -> None:
        """Nothing: the daemon keeps no working container of a build."""

    def has(self, tag: str) -> bool:
        words = ["docker", "image", "inspect", tag]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def tags(self, name: str) -> list[str]:
        return run(["docker", "images", "--format", "{{.Tag}}", name]).split()

    def tag(self, source: str, target: str) -> None:
        run(["docker", "tag", source, target])

    def remove(self, tag: str) -> None:
        run(["docker", "rmi", tag])

    def pull(self, tag: str) -> None:
        run(["docker", "pull", "--quiet", tag])

    def build(self, recipe: Recipe, tag: str) -> None:
        words = ["docker", "buildx", "build", "--no-cache", "--provenance=false"]
        words += [f"--build-arg=SOURCE_DATE_EPOCH={EPOCH}"]
        words += [f"--output=type=docker,name={tag},rewrite-timestamp=true"]
        run([*words, *_build_flags(recipe), str(recipe.context)], show=True)

    def describe(self, tag: str) -> dict[str, Any]:
        found = json.loads(run(["docker", "image", "inspect", tag]))[0]
        return {"id": found["Id"], "layers": found["RootFS"]["Layers"], "config": found["Config"]}

    def ask(self, tag: str, program: Path) -> str:
        words = ["docker", "run", "--rm", "-i", "--entrypoint", "python3", tag, "-B", "-"]
        return run(words, text=program.read_text("utf-8"))

    def export(self, tag: str, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saved:
            unpacked = subprocess.run(
                ["tar", "--extract", "--directory", str(target)], stdin=saved.stdout, check=False
            )
        if saved.returncode or unpacked.returncode:
            raise ImageError(f"docker save {tag}: it failed; its output is above")


def find_engine(store: Path) -> Engine:
    """The engine of this machine.

    Raises:
        ImageError: there is none; the message says which package brings one.
    """
    if shutil.which("buildah"):
        if os.geteuid() != 0:
            raise ImageError("buildah: needs root here; run make images as root")
        if not shutil.which("skopeo"):
            raise ImageError("skopeo: not on this machine; Debian: apt-get install skopeo")
        return Buildah(store)
    if shutil.which("docker"):
        try:
            run(["docker", "info"])
        except ImageError as error:
            raise ImageError(
                "docker: its daemon does not answer; start it, or install Debian's package buildah"
            ) from error
        return Docker()
    raise ImageError("neither buildah nor docker is here; Debian: apt-get install buildah skopeo")
