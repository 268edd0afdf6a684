"""The node's parts as processes: how each is started, whether it lives, what it said last."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .binaries import module
from .commands import last_lines
from .credentials import Credentials
from .errors import NodeError
from .fleet import SIMULATED
from .layout import Addresses, Layout
from .namespaces import NODE_NAME, Namespaces, signal_inside
from .waiting import wait

# Started from first to last, ended from last to first.
ORDER = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kwok",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The parts of one living node."""

    layout: Layout
    space: Namespaces

    def start(self, name: str, command: list[str]) -> None:
        """Start a part; it lives on when this process ends."""
        log, pid_file = self.layout.logs / f"{name}.log", self.layout.pids / name
        self.layout.pids.mkdir(exist_ok=True)
        # The shell ends at once, and the part becomes a child of the node's first process.
        script = 'log=$1 pid=$2; shift 2; "$@" </dev/null >>"$log" 2>&1 & echo $! >"$pid"'
        self.space.run("sh", "-c", script, "sh", log, pid_file, *command)

    def pid(self, name: str) -> int | None:
        """The number, inside the node, of a part that lives; None where it does not."""
        try:
            pid = int((self.layout.pids / name).read_text("ascii"))
            state = (self.space.processes / str(pid) / "stat").read_text("ascii")
        except (OSError, ValueError):
            return None
        return None if state.rpartition(")")[2].split()[0] == "Z" else pid

    def require_alive(self, names: Sequence[str] = ORDER) -> None:
        """Raise when one of these parts was started and lives no more.

        Raises:
            NodeError: it names the part, its log and its last lines.
        """
        for name in names:
            if (self.layout.pids / name).exists() and self.pid(name) is None:
                raise NodeError(f"{name} ended: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The last lines of a part's log, and where all of it is."""
        log = self.layout.logs / f"{name}.log"
        text = log.read_text("utf-8", "replace") if log.exists() else ""
        return f"{last_lines(text) or 'it said nothing'} ({log})"

    def stop(self, name: str, *, seconds: float = 10) -> None:
        """Ask a part to end; after so many seconds the end of the namespaces will do it."""
        if (pid := self.pid(name)) is None:
            return
        signal_inside(self.space, pid, signal.SIGTERM)
        try:
            wait(lambda: self.pid(name) is None, f"the end of {name}", seconds=seconds)
        except NodeError:
            signal_inside(self.space, pid, signal.SIGKILL)
            wait(lambda: self.pid(name) is None, f"the end of {name}", seconds=seconds)
        (self.layout.pids / name).unlink(missing_ok=True)


def commands(
    layout: Layout, addresses: Addresses, credentials: Credentials, programs: Mapping[str, Path]
) -> dict[str, list[str]]:
    """The command line of every part, by name."""
    config, secrets = layout.config, credentials.folder
    kubernetes = programs["kubernetes"].parent
    etcd = "http://127.0.0.1:2379"
    return {
        "containerd": ["containerd", "--config", f"{config}/containerd.toml"],
        "etcd": [
            str(programs["etcd"]),
            f"--data-dir={layout.state}/etcd",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # what it holds need not outlive the node
            "--log-level=warn",
        ],
        "kube-apiserver": [
            f"{kubernetes}/kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--advertise-address={addresses.node}",
            "--secure-port=6443",
            f"--service-cluster-ip-range={addresses.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--token-auth-file={secrets}/tokens.csv",
            f"--tls-cert-file={secrets}/apiserver.pem",
            f"--tls-private-key-file={secrets}/apiserver-key.pem",
            f"--kubelet-client-certificate={secrets}/apiserver-to-kubelet.pem",
            f"--kubelet-client-key={secrets}/apiserver-to-kubelet-key.pem",
            f"--kubelet-certificate-authority={secrets}/ca.pem",
            "--kubelet-preferred-address-types=InternalIP",  # no name server knows the node's name
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={secrets}/service-accounts-key.pem",
            f"--service-account-signing-key-file={secrets}/service-accounts-key.pem",
        ],
        "kube-controller-manager": [
            f"{kubernetes}/kube-controller-manager",
            f"--kubeconfig={config}/kube-controller-manager.kubeconfig",
            "--use-service-account-credentials",
            f"--root-ca-file={secrets}/ca.pem",
            f"--service-account-private-key-file={secrets}/service-accounts-key.pem",
            f"--cluster-cidr={addresses.pods}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "kube-scheduler": [
            f"{kubernetes}/kube-scheduler",
            f"--kubeconfig={config}/kube-scheduler.kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ],
        "kubelet": [
            f"{kubernetes}/kubelet",
            f"--config={config}/kubelet.yaml",
            f"--kubeconfig={config}/node.kubeconfig",
            f"--root-dir={layout.state}/kubelet",
            f"--hostname-override={NODE_NAME}",
            f"--node-ip={addresses.node}",
        ],
        "kube-proxy": [
            f"{kubernetes}/kube-proxy",
            f"--config={config}/proxy.yaml",
            f"--hostname-override={NODE_NAME}",
        ],
    }


# How simulated nodes and pods behave: they become Ready at once, pods end when they are deleted.
_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat/node-heartbeat.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)


def kwok(layout: Layout, addresses: Addresses, program: Path) -> list[str]:
    """The command line of the simulated nodes' kubelet."""
    stages = module("kwok", "sigs.k8s.io/kwok") / "kustomize/stage"
    return [
        str(program),
        f"--kubeconfig={layout.config}/admin.kubeconfig",
        f"--manage-nodes-with-label-selector={SIMULATED}=true",
        "--cidr=10.245.0.0/16",
        f"--node-ip={addresses.node}",
        *(f"--config={stages / stage}" for stage in _STAGES),
    ]
