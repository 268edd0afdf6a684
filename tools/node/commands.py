"""Commands of the system, bounded in time, with an error that quotes their last words."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import CommandFailed


def run(
    command: Sequence[str | Path],
    *,
    seconds: float = 60,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """What the command printed.

    Raises:
        CommandFailed: it is absent, ended with another code than 0, or took longer than `seconds`.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(words[:6])}: no end after {seconds:.0f} s") from error
    if done.returncode:
        said = last_lines(done.stderr) or last_lines(done.stdout) or "nothing"
        raise CommandFailed(f"{' '.join(words[:6])}: code {done.returncode}: {said}")
    return done.stdout


def last_lines(text: str, count: int = 4) -> str:
    """The last lines of `text` that are not empty, as one line."""
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])
