"""JSON files that other programs write: read whole, within limits, or refused in one line."""

import json
import math
from pathlib import Path
from typing import Any

from moe_serve.errors import UsageError

_MAX_BYTES = 64 * 2**20


def read(path: Path, flag: str, *, finite: bool = True) -> Any:
    """The document in a file; with `finite`, NaN and infinity are refused wherever they stand.

    Raises:
        UsageError: it is no JSON, too large, nested too deeply, or has a key twice.
        FileNotFoundError: there is none.
    """
    name = f"{flag} {path}"
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise UsageError(f"{name}: {size} bytes; at most {_MAX_BYTES} are read")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not JSON: not UTF-8 text") from error
    try:
        found = json.loads(
            text,
            parse_constant=_constant if finite else float,
            parse_float=_float if finite else float,
            object_pairs_hook=_each_key_once,
        )
        # Half a character, as `\ud800`, can be read and not be printed.
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UsageError(f"{name}: nested too deeply") from error
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: not JSON: a \\u escape is half a character") from error
    except ValueError as error:
        raise UsageError(f"{name}: not JSON ({error}); is the file cut off?") from error
    return found


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found
