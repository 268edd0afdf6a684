"""A built image as a container runtime would run it, with nothing but util-linux and root.

Read-only root file system; /tmp, the cache folder and /dev/shm in memory; a user without a name, in
group 0; no capability, no way to gain one; no network but the loopback of its own.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from images.engine import Buildah

# In its own mount, network and process namespaces; `$1` is the image's root, the rest the command.
_ENTER = """
set -euo pipefail
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
if [ -d "$root/var/cache/moe-serve" ]; then
  mount -t tmpfs -o mode=2775,gid=0 tmpfs "$root/var/cache/moe-serve"
fi
mount -o remount,bind,ro "$root"
ip link set lo up
exec chroot "$root" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One image, mounted."""

    root: Path
    config: dict[str, object]

    def command(self, uid: int, *words: str, **variables: str) -> list[str]:
        """The whole command line that runs `words` in there."""
        environment = [*self.config["Env"], *(f"{k}={v}" for k, v in variables.items())]  # type: ignore[misc]
        inside = ["setpriv", f"--reuid={uid}", "--regid=0", "--clear-groups", "--no-new-privs"]
        inside += ["--bounding-set=-all", "--inh-caps=-all", "env", "-i", *environment, *words]
        outside = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        return [*outside, "bash", "-c", _ENTER, "enter", str(self.root), *inside]

    def run(self, uid: int, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command there and wait for it."""
        command = self.command(uid, *words, **variables)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def python(self, uid: int, code: str) -> str:
        """What a Python program prints there; it has to succeed."""
        result = self.run(uid, "python3", "-c", code)
        assert result.returncode == 0, result.stderr[-2000:]
        return result.stdout.strip()


@contextmanager
def entered(place: Path, tag: str) -> Iterator[Room]:
    """The image of that name, from the store of `make images`."""
    store = ["buildah", "--storage-driver", "overlay", "--root", str(place / "storage")]
    store += ["--runroot", str(place / "run")]

    def buildah(*words: str) -> str:
        return subprocess.run(
            [*store, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    container = buildah("from", "--pull-never", tag)
    try:
        root = Path(buildah("mount", container))
        yield Room(root=root, config=Buildah(place).describe(tag)["config"])
    finally:
        buildah("rm", container)
