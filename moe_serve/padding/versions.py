"""Parse and order versions of vLLM and AITER by PEP 440, without a third-party parser.

This runs inside vLLM's processes, where the project brings no dependency of its own
(docs/adr/0004). The rules are those of the specification, and the tests compare this module with
the `packaging` library: the same texts are versions, the order is the same, local parts included.
"""

import functools
import re
from dataclasses import dataclass

from moe_serve.errors import UsageError

_PATTERN = re.compile(
    r"v?"
    r"(?:(?P<epoch>[0-9]+)!)?"
    r"(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?P<pre>[-_.]?(?P<pre_l>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>[0-9]+)?)?"
    r"(?P<post>-(?P<post_n1>[0-9]+)|[-_.]?(?P<post_l>post|rev|r)[-_.]?(?P<post_n2>[0-9]+)?)?"
    r"(?P<dev>[-_.]?dev[-_.]?(?P<dev_n>[0-9]+)?)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE | re.ASCII,
)
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
# Longer numbers are nothing that a release has, and slow to convert.
_LONGEST = 200
# Sorts before and after every number of its place.
_BEFORE, _NUMBER, _AFTER = 0, 1, 2
_Key = tuple[object, ...]


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version in the parts of PEP 440; `pre`, `post`, `dev` and `local` are None where absent."""

    epoch: int
    release: tuple[int, ...]
    pre: tuple[str, int] | None = None
    post: int | None = None
    dev: int | None = None
    local: tuple[int | str, ...] | None = None

    def __eq__(self, other: object) -> bool:
        """Equal as PEP 440 has it: `0.1` is `0.1.0`."""
        if not isinstance(other, Version):
            return NotImplemented
        return self._key() == other._key()

    def __lt__(self, other: "Version") -> bool:
        """PEP 440's order."""
        return self._key() < other._key()

    def __hash__(self) -> int:
        """Equal versions have equal hashes."""
        return hash(self._key())

    @property
    def minor(self) -> tuple[int, int]:
        """The first two numbers of the release: vLLM changes behaviour there."""
        return (self.number(0), self.number(1))

    @property
    def public(self) -> "Version":
        """The version without its local part, which names a build and not a release."""
        return Version(self.epoch, self.release, self.pre, self.post, self.dev)

    @property
    def base(self) -> "Version":
        """The release that this version leads to: neither pre-release nor development part."""
        return Version(self.epoch, self.release, None, self.post)

    @property
    def development(self) -> bool:
        """Whether the build is of a commit between releases."""
        return self.dev is not None

    @property
    def candidate(self) -> bool:
        """Whether the build is a pre-release or of a commit before a release."""
        return self.pre is not None or self.development

    def number(self, place: int) -> int:
        """The number of the release at `place`, from 0; 0 where it has fewer."""
        return self.release[place] if place < len(self.release) else 0

    def _key(self) -> _Key:
        return (self.epoch, _trimmed(self.release), self._stage(), self._post(), *self._last())

    def _stage(self) -> _Key:
        if self.pre is not None:
            return (_NUMBER, *self.pre)
        # `1.0.dev1` precedes `1.0a1`.
        only_dev = self.dev is not None and self.post is None
        return (_BEFORE,) if only_dev else (_AFTER,)

    def _post(self) -> _Key:
        return (_BEFORE,) if self.post is None else (_NUMBER, self.post)

    def _last(self) -> _Key:
        dev = (_AFTER,) if self.dev is None else (_NUMBER, self.dev)
        return dev, () if self.local is None else (1, *map(_local_key, self.local))


def _trimmed(release: tuple[int, ...]) -> tuple[int, ...]:
    end = len(release)
    while end > 1 and release[end - 1] == 0:
        end -= 1
    return release[:end]


def _local_key(part: int | str) -> _Key:
    return (_NUMBER, part, "") if isinstance(part, int) else (_BEFORE, 0, part)


def parse_version(text: str, *, what: str) -> Version:
    """Parse `0.1.15.post3`, `v0.1.13-rc5`, `0.22.1rc1.dev491+g1033ffac2`; `what` names the flag.

    Raises:
        UsageError: the text is no version by PEP 440.
    """
    match = _PATTERN.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
        raise UsageError(
            f"{what}: {shown!r} is not a version; give what `pip show` says, such as 0.32.0"
        )
    return Version(
        epoch=int(match["epoch"] or 0),
        release=tuple(int(part) for part in match["release"].split(".")),
        pre=_pre(match),
        post=_optional(match["post"], match["post_n1"] or match["post_n2"]),
        dev=_optional(match["dev"], match["dev_n"]),
        local=_local(match["local"]),
    )


def _pre(match: re.Match[str]) -> tuple[str, int] | None:
    if match["pre"] is None:
        return None
    letter = match["pre_l"].lower()
    return _PRE.get(letter, letter), int(match["pre_n"] or 0)


def _optional(part: str | None, number: str | None) -> int | None:
    return None if part is None else int(number or 0)


def _local(text: str | None) -> tuple[int | str, ...] | None:
    if text is None:
        return None
    parts = re.split(r"[-_.]", text.lower())
    return tuple(int(part) if part.isdigit() else part for part in parts)
