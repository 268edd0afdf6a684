"""What a person's shell needs to talk to the node: one file to source."""

from pathlib import Path

from .kubernetes import direct
from .layout import REPOSITORY, Layout


def write(layout: Layout, kubectl: Path) -> Path:
    """Write the file, and beside it a folder with kubectl and Helm; the file's path."""
    programs = layout.state / "bin"
    programs.mkdir(exist_ok=True)
    for name, target in (("kubectl", kubectl), ("helm", REPOSITORY / ".venv/bin/helm")):
        link = programs / name
        link.unlink(missing_ok=True)
        if target.exists():
            link.symlink_to(target)
    lines = [f'export PATH="{programs}:$PATH"']
    lines += [f'export {name}="{value}"' for name, value in direct(layout.kubeconfig).items()]
    place = layout.state / "env"
    place.write_text("\n".join(lines) + "\n")
    return place
