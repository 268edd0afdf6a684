"""What git knows of the working tree."""

import subprocess
from pathlib import Path

from tools.errors import ToolError

ROOT = Path(__file__).parents[1]


def git(*words: str, root: Path = ROOT) -> str:
    """What a git command prints.

    Raises:
        ToolError: git is absent or refuses; the message quotes git's first line.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ToolError("git: not on this machine; apt-get install git") from error
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise ToolError(f"git {' '.join(words)}: {said}")
    return done.stdout


def present(*patterns: str, root: Path = ROOT) -> list[str]:
    """The paths in the working tree that git tracks or would add, sorted, below `root`.

    Args:
        patterns: git pathspecs; without any, every path.
        root: the folder of the repository.

    Raises:
        ToolError: `root` is no git repository.
    """
    listed = git(
        *("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns),
        root=root,
    )
    # A path that was removed without `git rm` is still listed.
    return sorted(path for path in set(listed.split("\0")) if path and (root / path).is_file())
