"""A values file as declarations: each value with the comment above it. Written once, read thrice.

`# -- ` begins what a value is for and goes on in the comment lines below it; `# @schema {...}` adds
what its default does not tell, in JSON Schema's words. A comment without `# --` is for the reader
of the file alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_SAYS, _SCHEMA = "# -- ", "# @schema "


class Undeclared(Exception):
    """A value has no comment, or one that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One key: a leaf with its default, or a group of `children`."""

    name: str
    path: str
    says: str
    schema: dict[str, Any]
    default: Any
    children: tuple["Value", ...] = field(default=())


def read(path: Path) -> tuple[Value, ...]:
    """The declarations of a values file, in its order.

    Raises:
        Undeclared: a leaf has no `# --` comment.
    """
    text = path.read_text("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return _children(root, "", text.splitlines(), path)


def _children(
    node: yaml.MappingNode, above: str, lines: list[str], source: Path
) -> tuple[Value, ...]:
    found = []
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else str(key.value)
        says, schema = _comment(lines, key.start_mark.line, f"{source}: {path}")
        block = isinstance(value, yaml.MappingNode) and value.value and not value.flow_style
        group = block and "additionalProperties" not in schema
        if not group and not says:
            raise Undeclared(f"{source}: {path} has no '# --' comment; say what it is for")
        found.append(
            Value(
                name=str(key.value),
                path=path,
                says=says,
                schema=schema,
                default=yaml.safe_load(yaml.serialize(value)),
                children=_children(value, path, lines, source) if group else (),
            )
        )
    return tuple(found)


def _comment(lines: list[str], at: int, what: str) -> tuple[str, dict[str, Any]]:
    above: list[str] = []
    while at > 0 and lines[at - 1].strip().startswith("#"):
        at -= 1
        above.insert(0, lines[at].strip())
    says: list[str] = []
    schema: dict[str, Any] = {}
    for line in above:
        if line.startswith(_SCHEMA):
            try:
                schema |= yaml.safe_load(line.removeprefix(_SCHEMA))
            except (yaml.YAMLError, TypeError, ValueError) as error:
                raise Undeclared(f"{what}: its '# @schema' is no mapping: {error}") from error
        elif line.startswith(_SAYS):
            says = [line.removeprefix(_SAYS)]
        elif says:
            says.append(line.removeprefix("#").strip())
    return " ".join(says), schema
