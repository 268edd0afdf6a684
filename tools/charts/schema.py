"""`values.schema.json`, from a values file's declarations: what it does not declare is refused."""

import json
from collections.abc import Mapping
from typing import Any

from tools.charts.declarations import Value

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}


def schema(
    values: tuple[Value, ...], *, title: str, definitions: Mapping[str, Any] | None = None
) -> str:
    """The file's text. `global` is open: a parent chart may share other keys through it.

    `definitions` are what a value's `$ref: "#/$defs/..."` points at.
    """
    found = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **_object(values),
    }
    if definitions:
        found["$defs"] = dict(definitions)
    if "global" in found["properties"]:
        found["properties"]["global"]["additionalProperties"] = True
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _object(values: tuple[Value, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: _property(value) for value in values},
        # Helm takes a key out whose value is null, and templates would read nothing there. So does
        # `helm upgrade --reuse-values` with the keys that the previous chart did not have.
        "required": [value.name for value in values if not _may_be_absent(value)],
    }


def _may_be_absent(value: Value) -> bool:
    return "null" in value.schema.get("type", ())


def _property(value: Value) -> dict[str, Any]:
    if value.children:
        return _object(value.children)
    described = {"description": value.says, "default": value.default}
    kind = "object" if isinstance(value.default, dict) else _TYPES.get(type(value.default))
    # An enum says what is allowed, better than a type beside it.
    typed = {} if kind is None or "enum" in value.schema else {"type": kind}
    return {**described, **typed, **value.schema}
