"""kubectl and helm, on the node or on the user's own cluster."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .commands import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubernetes:
    """A cluster, by its kubeconfig."""

    kubeconfig: Path
    kubectl_program: Path | str = "kubectl"

    def kubectl(self, *words: str | Path, stdin: str | None = None, seconds: float = 60) -> str:
        """What kubectl printed; see `commands.run` for what it raises."""
        return run(
            [self.kubectl_program, *words],
            stdin=stdin,
            seconds=seconds,
            env=direct(self.kubeconfig),
        )

    def get(self, *words: str) -> Any:
        """`kubectl get ... -o json`, parsed."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, manifest: str, *words: str, seconds: float = 120) -> str:
        """Apply a manifest, by the server's own merge."""
        command = ["apply", "--server-side", "--force-conflicts", "-f", "-", *words]
        return self.kubectl(*command, stdin=manifest, seconds=seconds)


def direct(kubeconfig: Path) -> dict[str, str]:
    """The environment of a client: this cluster, and no proxy before the node's own addresses."""
    around = ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "198.18.0.0/15"]))
    return {"KUBECONFIG": str(kubeconfig), "NO_PROXY": around, "no_proxy": around}
