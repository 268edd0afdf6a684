"""Where everything of one node lies. Paths and names only: nothing here touches the disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TOOLS = REPOSITORY / "tools/node/programs"
MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folders of one node. What is below `state` ends with the node; the rest is kept."""

    cache: Path

    @property
    def state(self) -> Path:
        return self.cache / "cluster"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def pids(self) -> Path:
        return self.state / "pids"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def containerd(self) -> Path:
        """Kept from one node to the next: importing gigabytes anew takes minutes."""
        return self.cache / "containerd"

    @property
    def binaries(self) -> Path:
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        """Where `make images` leaves what it built."""
        return self.cache / "images"

    @property
    def key(self) -> str:
        """Six letters that keep the nodes of two cache folders on one machine apart."""
        return hashlib.sha256(str(self.cache).encode()).hexdigest()[:6]

    @property
    def cgroup(self) -> str:
        return f"moe-serve-{self.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The node's place on a link that only this machine sees; pods and Services are inside it."""

    link: str
    machine: str
    node: str

    services: str = "10.96.0.0/16"
    api_service: str = "10.96.0.1"
    dns_service: str = "10.96.0.10"
    pods: str = "10.244.0.0/16"

    @property
    def api(self) -> str:
        return f"https://{self.node}:6443"


def addresses(layout: Layout) -> Addresses:
    """The node's addresses: two of 198.18.0.0/15, which RFC 2544 sets aside for test benches."""
    block = int(layout.key, 16) % 2**15 * 4
    prefix = f"198.{18 + block // 2**16}.{block // 256 % 256}"
    low = block % 256
    return Addresses(
        link=f"moe-{layout.key}", machine=f"{prefix}.{low + 1}", node=f"{prefix}.{low + 2}"
    )
