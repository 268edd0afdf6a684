"""YAML files that people write: read, checked key by key, refused in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from moe_serve.errors import UsageError


def read(path: Path, flag: str) -> Any:
    """The document in a file that `flag` named.

    Raises:
        UsageError: it cannot be read, is not YAML, or has a key twice.
    """
    name = f"{flag} {path}"
    try:
        loader = yaml.SafeLoader(path.read_text("utf-8"))
        root = loader.get_single_node()
        if root is None:
            return None
        _each_key_once(root, (), name, set())
        return loader.construct_document(root)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from error
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply") from error
    # A date that is none is a plain ValueError.
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{name}: not YAML: {' '.join(str(error).split())}") from error


def _each_key_once(node: yaml.Node, path: tuple[str, ...], name: str, seen: set[int]) -> None:
    """YAML's reader would take the last of two equal keys, and say nothing."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            _each_key_once(part, (*path, str(number)), name, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[tuple[str, str], int] = {}
    for key, part in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if (first := lines.get((key.tag, key.value))) is not None:
                where = ".".join((*path, key.value))
                raise UsageError(f"{name}, line {line}: {where} is there already, in line {first}")
            lines[key.tag, key.value] = line
        _each_key_once(part, (*path, str(getattr(key, "value", "?"))), name, seen)


def first_fault(error: ValidationError, form: type[BaseModel]) -> str:
    """One line: the key's path, what is wrong, and how many more there are."""
    # A key that is misspelt is missing too: what was written says more.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    path = faults[0]["loc"]
    text = faults[0]["msg"]
    if faults[0]["type"] == "extra_forbidden":
        text = f"unknown key; known here: {', '.join(_known(path[:-1], form))}"
    elif faults[0]["type"] == "model_type":
        text = "must be a mapping (key: value)"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{'.'.join(map(str, path)) or 'document'}: {text}{more}"


def _known(path: tuple[int | str, ...], form: type[BaseModel]) -> list[str]:
    """The keys that the form allows at a path; numbers in it are places in a list."""
    for key in path:
        if isinstance(key, str):
            form = next(_forms(form.model_fields[key].annotation))
    return list(form.model_fields)


def _forms(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _forms(part)
