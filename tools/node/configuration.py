"""The files that the node's parts read. Each setting that is not a default says why it is there."""

import base64
import json
from pathlib import Path

import yaml

from .credentials import Credentials
from .layout import Addresses, Layout
from .preconditions import CNI_PLUGINS

PAUSE_IMAGE = "localhost/moe-serve-node/pause:built"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


def write(layout: Layout, addresses: Addresses, credentials: Credentials) -> None:
    """Write every file below `layout.config`, and the administrator's kubeconfig."""
    config = layout.config
    network = config / "cni"
    network.mkdir(parents=True, exist_ok=True)
    (config / "containerd.toml").write_text(_containerd(layout, network))
    (network / "10-pods.conflist").write_text(json.dumps(_network(layout, addresses)))
    (config / "resolv.conf").write_text("")  # the node has no name server above its own
    for name, content in (
        ("kubelet", _kubelet(layout, addresses, credentials)),
        ("proxy", _proxy(layout, addresses)),
    ):
        (config / f"{name}.yaml").write_text(yaml.safe_dump(content))
    for user, token in credentials.tokens.items():
        name = user.removeprefix("system:").partition(":")[0]
        _kubeconfig(config / f"{name}.kubeconfig", addresses, credentials, token)
    admin = credentials.tokens["admin"]
    _kubeconfig(layout.kubeconfig, addresses, credentials, admin)


def _kubeconfig(path: Path, addresses: Addresses, credentials: Credentials, token: str) -> None:
    authority = base64.b64encode(credentials.authority.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "moe-serve",
        "clusters": [
            {
                "name": "moe-serve",
                "cluster": {
                    "server": addresses.api,
                    "certificate-authority-data": authority,
                },
            }
        ],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "moe-serve", "context": {"cluster": "moe-serve", "user": "user"}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content))


def _containerd(layout: Layout, network: Path) -> str:
    return f"""\
version = 2
root = "{layout.containerd}"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"  # its default is a folder of the machine

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true  # root may lack CAP_SYS_RESOURCE; without it no sandbox starts then
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{network}"
"""


def _network(layout: Layout, addresses: Addresses) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isGateway": True,
                "hairpinMode": True,  # a pod may reach itself by its Service
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": addresses.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/pod-addresses",
                },
            }
        ],
    }


def _kubelet(layout: Layout, addresses: Addresses, credentials: Credentials) -> dict[str, object]:
    folder = credentials.folder
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(credentials.authority)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(folder / "kubelet.pem"),
        "tlsPrivateKeyFile": str(folder / "kubelet-key.pem"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",  # no systemd is asked for anything
        "cgroupRoot": f"/{layout.cgroup}",
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses.dns_service],
        "resolvConf": str(layout.config / "resolv.conf"),
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/run/kubelet-plugins",
        # Images come from archives, and none can be fetched again: nothing may throw them away, and
        # a busy machine is no reason to evict a test.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "maxPods": 60,
        "registerWithTaints": [],
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
    }


def _proxy(layout: Layout, addresses: Addresses) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": addresses.node,
        "clusterCIDR": addresses.pods,
        "clientConnection": {"kubeconfig": str(layout.config / "kube-proxy.kubeconfig")},
        # The connection table's limits belong to the machine, not to the node.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
