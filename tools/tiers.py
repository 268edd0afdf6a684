"""Print the tiers of tests that a change needs, and why: `make tiers BASE=REVISION`.

python -m tools.tiers [--base REVISION]     every tier that the change since REVISION needs
python -m tools.tiers --by-name             of those, what `.ci/run` does not run, one per line
python -m tools.tiers --table               the table of CONTRIBUTING.md

`tools/tiers.yaml` maps paths to tiers. The change is everything that differs between the revision
and the working tree. Without --base it begins where this branch left the main branch.
"""

import argparse
import fnmatch
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tools.errors import ToolError
from tools.git import ROOT, git, present

MAP = Path(__file__).with_name("tiers.yaml")
MAIN = ("origin/HEAD", "origin/main", "main")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tier(_Strict):
    """A set of tests with the command that runs it.

    `minutes` is what it takes on two cores with a full cache, as text ("20 to 40").
    """

    command: str
    proves: str
    minutes: str
    base: bool = False


class Rule(_Strict):
    """The tiers that every path needs which one of the patterns matches."""

    paths: tuple[str, ...]
    tiers: tuple[str, ...]


class TierMap(_Strict):
    """Tiers by name, and rules that say which paths need which tiers."""

    tiers: Mapping[str, Tier]
    rules: tuple[Rule, ...]
    absent: tuple[str, ...] = ()

    def of(self, path: str) -> set[str] | None:
        """The names of the tiers that a path needs; None if no rule matches the path."""
        matching = [
            rule
            for rule in self.rules
            if any(fnmatch.fnmatchcase(path, pattern) for pattern in rule.paths)
        ]
        return {name for rule in matching for name in rule.tiers} if matching else None

    def patterns(self) -> set[str]:
        """Every pattern of every rule."""
        return {pattern for rule in self.rules for pattern in rule.paths}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Paths that differ from a revision; `removed` are those that the working tree lacks."""

    base: str
    paths: tuple[str, ...]
    removed: frozenset[str] = frozenset()


def load(path: Path = MAP) -> TierMap:
    """Read a map of paths to tiers.

    Raises:
        ToolError: the file is no such map; the message names the key.
    """
    try:
        found = TierMap.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ToolError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ToolError(f"{path}: {key}: {first['msg']}") from error
    for rule in found.rules:
        if unknown := sorted(set(rule.tiers) - set(found.tiers)):
            raise ToolError(
                f"{path}: rules: {', '.join(rule.paths)}: no such tier: {', '.join(unknown)}"
            )
    if stray := sorted(set(found.absent) - found.patterns()):
        raise ToolError(f"{path}: absent: {stray[0]}: no rule has this pattern; remove it")
    return found


def check(tiers: TierMap, paths: Iterable[str]) -> list[str]:
    """What is wrong with a map for these paths, one line each.

    Args:
        tiers: the map.
        paths: every path of the repository.
    """
    known = list(paths)
    problems = [
        f"{path}: no rule of {MAP.name} matches it; add it to a rule" for path in known
        if tiers.of(path) is None
    ]  # fmt: skip
    problems += [
        f"{MAP.name}: {pattern}: it matches no path; remove it"
        for pattern in sorted(tiers.patterns() - set(tiers.absent))
        if not fnmatch.filter(known, pattern)
    ]
    return problems


def change_since(base: str, root: Path = ROOT) -> Change:
    """Everything that differs between a revision and the working tree, new files included.

    A renamed file counts with its old and its new path.

    Raises:
        ToolError: `base` is no revision of this repository.
    """
    revision = git("rev-parse", "--short", "--verify", f"{base}^{{commit}}", root=root).strip()
    differing = git("diff", "--name-only", "--no-renames", "-z", revision, "--", root=root)
    new = git("ls-files", "-z", "--others", "--exclude-standard", root=root)
    paths = sorted({path for path in (differing + new).split("\0") if path})
    removed = frozenset(set(paths) - set(present(root=root)))
    return Change(base=revision, paths=tuple(paths), removed=removed)


def branch_point(root: Path = ROOT) -> str | None:
    """The commit where this branch left the main branch.

    None if that cannot be told: there is no other branch, or it has all commits of this one.
    """
    head = git("rev-parse", "HEAD", root=root).strip()
    for main in MAIN:
        done = subprocess.run(
            ["git", "-C", str(root), "merge-base", "HEAD", main],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            found = done.stdout.strip()
            return found if found != head else None
    return None


def reasons(tiers: TierMap, change: Change) -> dict[str, list[str]]:
    """The tiers that a change needs, each with the paths that need it.

    A removed path that the map does not know needs every tier: what tested it is not known.

    Raises:
        ToolError: the map does not know a path that is there.
    """
    found: dict[str, list[str]] = {name: [] for name in tiers.tiers}
    for path in change.paths:
        needed = tiers.of(path)
        if needed is None and path not in change.removed:
            raise ToolError(f"{path}: no rule of {MAP.name} matches it; add it to a rule")
        for name in tiers.tiers if needed is None else needed:
            found[name].append(path)
    return {name: paths for name, paths in found.items() if paths}


def by_name(tiers: TierMap, change: Change | None) -> Iterator[str]:
    """A line for each tier that has to be run by name: its command, and why.

    Args:
        tiers: the map.
        change: the change; None if it is not known, and then every such tier has a line.
    """
    needed = {} if change is None else reasons(tiers, change)
    for name, tier in tiers.tiers.items():
        if tier.base or (change is not None and name not in needed):
            continue
        why = _changed(needed[name]) if change else "what has changed is not known (name a base)"
        yield f"{tier.command} ({tier.minutes} minutes): {why}"


def _changed(paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more paths" if len(paths) > 1 else ""
    return f"{paths[0]}{more} changed"


def summary(tiers: TierMap, change: Change | None) -> Iterator[str]:
    """All that `make tiers` prints."""
    if change is not None:
        yield f"{len(change.paths)} paths differ from {change.base}"
    needed = {} if change is None else reasons(tiers, change)
    yield "always, in .ci/run:"
    for name, tier in tiers.tiers.items():
        if tier.base:
            yield f"  {tier.command}: {_changed(needed[name]) if name in needed else tier.proves}"
    lines = list(by_name(tiers, change))
    yield "by name:" if lines else "by name: nothing"
    yield from (f"  {line}" for line in lines)


def table(tiers: TierMap) -> Iterator[str]:
    """The tiers as a Markdown table."""
    yield "| command | what it shows | minutes, caches full | when |"
    yield "|---|---|---|---|"
    for tier in tiers.tiers.values():
        when = "always, in `.ci/run`" if tier.base else "when `make tiers` names it"
        yield f"| `{tier.command}` | {tier.proves} | {tier.minutes} | {when} |"


def main(arguments: list[str] | None = None) -> int:
    """Print what was asked for; 2 with one line on standard error if it is not known."""
    parser = argparse.ArgumentParser(prog="tools.tiers", description=__doc__)
    parser.add_argument("--base", help="the revision that the change began at")
    parser.add_argument("--by-name", action="store_true", help="only what .ci/run does not run")
    parser.add_argument("--table", action="store_true", help="the tiers as a Markdown table")
    options = parser.parse_args(arguments)
    try:
        tiers = load()
        if options.table:
            lines = list(table(tiers))
        else:
            base = options.base or branch_point()
            change = change_since(base) if base else None
            lines = list((by_name if options.by_name else summary)(tiers, change))
    except ToolError as error:
        print(f"tiers: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
