"""Order release versions of vLLM and AITER without a third-party parser.

This runs inside vLLM's processes, where the project brings no dependency of its own.
"""

import re
from dataclasses import dataclass

from moe_serve.errors import UsageError

_PATTERN = re.compile(
    r"v?(?P<release>\d+(?:\.\d+){1,3})"
    r"(?:[-_.]?(?P<pre>a|b|rc)[-_.]?(?P<pre_n>\d+))?"
    r"(?:[-_.]?post[-_.]?(?P<post>\d+))?"
    r"(?:[-_.]?dev[-_.]?(?P<dev>\d+))?"
    r"(?:\+(?P<local>[A-Za-z0-9._-]+))?"
)
_FINAL, _PRE, _DEV = 2, 1, 0


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A release version; ordered as PEP 440 orders it, its local part left out."""

    release: tuple[int, ...]
    stage: tuple[int, ...]
    post: int

    @property
    def minor(self) -> tuple[int, int]:
        """The first two numbers: vLLM's releases change behaviour there."""
        return (self.release[0], self.release[1])


def parse_version(text: str, *, what: str) -> Version:
    """Parse `0.1.15.post3`, `v0.1.13-rc5`, `0.32.0+cpu`; `what` names the flag in errors.

    Raises:
        UsageError: the text is not a release version.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{what}: {text!r} is not a version; give one such as 0.32.0")
    numbers = [int(part) for part in match["release"].split(".")]
    release = tuple(numbers + [0] * (4 - len(numbers)))
    post = int(match["post"]) if match["post"] else 0
    if match["pre"]:
        return Version(
            release, (_PRE, ["a", "b", "rc"].index(match["pre"]), int(match["pre_n"])), post
        )
    if match["dev"] and not post:
        return Version(release, (_DEV,), post)
    return Version(release, (_FINAL,), post)
