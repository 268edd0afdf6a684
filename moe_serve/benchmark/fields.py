"""Checked numbers of a JSON object; an error names the file and the key."""

import math
from collections.abc import Mapping

from moe_serve.errors import UsageError


def _number(value: object) -> float | None:
    """The value as a finite number, else None; digits in a string count, as metadata has them."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def optional_positive(content: Mapping[str, object], key: str, source: str) -> float | None:
    """The key's number, finite and above 0; None where the key is absent or null.

    Raises:
        UsageError: NaN, infinite, 0 or less, or no number.
    """
    value = content.get(key)
    if value is None:
        return None
    number = _number(value)
    if number is None or number <= 0:
        raise UsageError(
            f"{source}: {key} is {str(value)[:40]}, no finite number above 0; repeat the run"
        )
    return number


def positive(content: Mapping[str, object], key: str, source: str) -> float:
    """The key's number, finite and above 0; absent or null is an error too (`UsageError`)."""
    number = optional_positive(content, key, source)
    if number is None:
        raise UsageError(f"{source}: {key} is missing: the file is not complete; repeat the run")
    return number


def optional_int(content: Mapping[str, object], key: str, source: str) -> int | None:
    """The key's whole number, 0 or more; None where the key is absent or null.

    Raises:
        UsageError: anything else.
    """
    value = content.get(key)
    if value is None:
        return None
    number = _number(value)
    if number is None or number < 0 or number != int(number):
        raise UsageError(
            f"{source}: {key} is {str(value)[:40]}, no whole number of 0 or more; repeat the run"
        )
    return int(number)


def section(content: Mapping[str, object], key: str, source: str) -> Mapping[str, object]:
    """The JSON object below a key; anything else is a `UsageError`."""
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise UsageError(
            f"{source}: {key} is missing or no object: the file is not complete; repeat the run"
        )
    return value
