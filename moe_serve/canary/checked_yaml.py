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
        UsageError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {path}: not YAML: {' '.join(str(error).split())}") from error


def first_fault(error: ValidationError, form: type[BaseModel]) -> str:
    """One line: the key's path, what is wrong, and how many more there are."""
    faults = error.errors()
    path = faults[0]["loc"]
    text = faults[0]["msg"]
    if faults[0]["type"] == "extra_forbidden":
        text = f"unknown key; known here: {', '.join(_known(path[:-1], form))}"
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
