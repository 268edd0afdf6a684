"""Numbers out of a JSON object: finite, in range, or one line that names the file and the key."""

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
    """A finite number above 0; None where the key is absent or null.

    Raises:
        UsageError: NaN, infinite, 0 or less, or no number.
    """
    value = content.get(key)
    if value is None:
        return None
    number = _number(value)
    if number is None or number <= 0:
        raise UsageError(f"{source}: {key} is {str(value)[:40]}; a finite number above 0 is needed")
    return number


def positive(content: Mapping[str, object], key: str, source: str) -> float:
    """A finite number above 0 that must be there."""
    number = optional_positive(content, key, source)
    if number is None:
        raise UsageError(f"{source}: {key} is missing; the file is not complete")
    return number


def optional_int(content: Mapping[str, object], key: str, source: str) -> int | None:
    """A whole number of 0 or more; None where the key is absent or null.

    Raises:
        UsageError: anything else.
    """
    value = content.get(key)
    if value is None:
        return None
    number = _number(value)
    if number is None or number < 0 or number != int(number):
        raise UsageError(
            f"{source}: {key} is {str(value)[:40]}; a whole number, 0 or more, is needed"
        )
    return int(number)


def section(content: Mapping[str, object], key: str, source: str) -> Mapping[str, object]:
    """A JSON object below a key."""
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise UsageError(f"{source}: {key} is missing or no object; the file is not complete")
    return value
