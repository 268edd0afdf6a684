"""What an installed version says of the code that runs: which releases it may behave like.

A release has one behaviour. A release candidate or a development build lies between two of them;
a shallow clone names the newest code as the oldest. Such a build is judged as every release that
it may be, the worst of them counts, and it is marked unverified.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from moe_serve.errors import UsageError
from moe_serve.padding.versions import Version, parse_version

Era = TypeVar("Era")
UNKNOWN = "unknown"
# Tags of images that name a day or a commit of the main branch, and no version.
_NIGHTLY = re.compile(r"nightly(?:-[0-9a-f]{7,40})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build(Generic[Era]):
    """One installed version and the releases that it is judged as, oldest first.

    `unverified`: why the answer is not from that build's own source; None: it is.
    """

    text: str
    eras: tuple[Era, ...]
    unverified: str | None = None

    @property
    def verified(self) -> bool:
        """Whether this release's own source was read or run."""
        return self.unverified is None

    def only(self, era: Era) -> "Build[Era]":
        """This build, judged as one of its releases."""
        return replace(self, eras=(era,))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHistory(Generic[Era]):
    """The releases of one product whose behaviour is known.

    `starts`: the first release of each behaviour, the oldest known release first. `newest_read`:
    the newest release whose own source was read. `line`: how many numbers of a release name its
    line (vLLM 0.22: two). `era`: the behaviour of one version.
    """

    product: str
    starts: tuple[Version, ...]
    newest_read: Version
    line: int
    era: Callable[[Version, str], Era]

    @property
    def every(self) -> tuple[Era, ...]:
        """One release of every behaviour, oldest first."""
        return tuple(self.era(start, show(start)) for start in self.starts)

    def build(self, text: str, *, what: str) -> Build[Era]:
        """The build that `text` names: a version, `unknown`, `nightly` or `nightly-<commit>`.

        Raises:
            UsageError: no version, or a release older than the oldest that is known.
        """
        name = text.strip()
        if name == UNKNOWN or _NIGHTLY.fullmatch(name):
            return self._any(text, f"{self.product}'s version is not known")
        version = parse_version(text, what=what)
        if version.candidate:
            return self._between(text, version, what=what)
        if version.public < self.starts[0]:
            raise self._older(text, what=what)
        return Build(
            text=text, eras=(self.era(version.public, text),), unverified=self._newer(text, version)
        )

    def _newer(self, text: str, version: Version) -> str | None:
        if version.public <= self.newest_read:
            return None
        return (
            f"{self.product} {text} is newer than {show(self.newest_read)}, the newest release "
            "whose own source was read: judged by the newest behaviour that is known"
        )

    def _between(self, text: str, version: Version, *, what: str) -> Build[Era]:
        oldest = self.starts[0]
        if version.base < oldest:
            if not version.development:
                raise self._older(text, what=what)
            # A clone without tags, or a fork that never moved them, names any code so.
            return self._any(text, f"{self.product} {text} names no release that it comes after")
        around = {version.base, *self._last(version)}
        if version.development:
            # Versions from Git count commits after the last tag: the code may be the next line's.
            around.add(self._next_line(version))
        known = sorted(around)
        judged = " and ".join(show(each) for each in known)
        return Build(
            text=text,
            eras=tuple(self.era(each, show(each)) for each in known),
            unverified=f"{self.product} {text} is no release: judged as {judged}, the worst counts",
        )

    def _last(self, version: Version) -> tuple[Version, ...]:
        return tuple(start for start in self.starts if start < version.public)[-1:]

    def _next_line(self, version: Version) -> Version:
        numbers = [version.number(place) for place in range(self.line)]
        return Version(version.epoch, (*numbers[:-1], numbers[-1] + 1, *(0,) * (3 - self.line)))

    def _any(self, text: str, why: str) -> Build[Era]:
        return Build(
            text=text, eras=self.every, unverified=f"{why}: every known release has to be safe"
        )

    def _older(self, text: str, *, what: str) -> UsageError:
        return UsageError(
            f"{what}: {text} is older than {show(self.starts[0])}, the oldest release that is known"
        )


def show(version: Version) -> str:
    """The release in its usual spelling, such as `0.1.15.post3`."""
    text = ".".join(map(str, version.release))
    return text if version.post is None else f"{text}.post{version.post}"
