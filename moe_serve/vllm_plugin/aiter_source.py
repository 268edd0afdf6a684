"""What the installed AITER's own source says of a build whose version says little.

A clone without tags names the newest code as the oldest. One thing its source does show: whether
`fused_moe` takes `gate_mode`, which every release from 0.1.14 on does and none before.
"""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from moe_serve.padding.aiter_eras import AiterEra, aiter_build
from moe_serve.padding.builds import Build

_PACKAGE, _SOURCE = "aiter", "fused_moe.py"
_GATE_MODE = "gate_mode"


def narrowed_build(text: str | None, *, what: str) -> Build[AiterEra]:
    """What the installed AITER of version `text` is judged as, without releases that it is not.

    Raises:
        UsageError: the version is none, or of a release that is too old.
    """
    build = aiter_build(text, what=what)
    if build.verified or len(build.eras) == 1:
        return build
    source = _source()
    if source is None:
        return build
    newer = _GATE_MODE in source
    eras = tuple(era for era in build.eras if era.reads_gate_mode is newer)
    return replace(build, eras=eras or build.eras)


def is_importable() -> bool:
    """Whether there is an AITER here, whatever its distribution says."""
    return _source() is not None


def _source() -> str | None:
    """The text of the installed `aiter/fused_moe.py`; None where there is none to read."""
    try:
        spec = find_spec(_PACKAGE)  # finds the package without importing it
        folders = list(spec.submodule_search_locations or ()) if spec else []
        return Path(folders[0], _SOURCE).read_text("utf-8") if folders else None
    except (ImportError, ValueError, OSError, UnicodeDecodeError):
        return None
