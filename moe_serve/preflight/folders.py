"""Files that the server needs: folders to write to, shared memory, and Harmony's vocabulary.

GPT-OSS's chat format needs the vocabulary, and downloads it at the first request if it is absent.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_serve.preflight.checks import PreflightCheck, fail, ok, skip
from moe_serve.telemetry.record import DEFAULT_RECORD_DIR, RECORD_DIR

CACHES = (
    "HOME",
    "HF_HOME",
    "VLLM_CACHE_ROOT",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "AITER_JIT_DIR",
)
_OFFLINE = "HF_HUB_OFFLINE"
_MIB = 2**20
# vLLM's message queues take up to 400 MiB a rank (v1/executor/multiproc_executor.py), RCCL some
# more; a container's default of 64 MiB ends in a bus error under load.
_SHM_BYTES_A_RANK = 1024 * _MIB
_SHM_BYTES_ALONE = 64 * _MIB
VOCABULARY = "TIKTOKEN_ENCODINGS_BASE"
VOCABULARY_FILE = "o200k_base.tiktoken"
# As openai-harmony itself demands it of the file that it loads.
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder by the variable that names it. `fault`: why nothing can be written there."""

    variable: str
    path: str | None
    fault: str | None = None
    readable: bool = False


def read_folders(environment: Mapping[str, str]) -> tuple[Folder, ...]:
    """Every cache and the records' folder, each tried by writing a file that has no name."""
    named = {variable: environment.get(variable) for variable in CACHES}
    named[RECORD_DIR] = environment.get(RECORD_DIR) or DEFAULT_RECORD_DIR
    return tuple(_probe(variable, path) for variable, path in named.items())


def _probe(variable: str, path: str | None) -> Folder:
    if not path:
        return Folder(variable=variable, path=None)
    # What is not there yet will be made by who writes first: nothing is left behind here.
    there = next(place for place in (Path(path), *Path(path).parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        fault = error.strerror or str(error)
        readable = os.access(path, os.R_OK | os.X_OK)
        return Folder(variable=variable, path=path, fault=fault, readable=readable)
    return Folder(variable=variable, path=path, readable=True)


def check_folders(
    folders: tuple[Folder, ...], environment: Mapping[str, str]
) -> Iterator[PreflightCheck]:
    """Whether each can be written to; weights that are here already may be read-only."""
    for folder in folders:
        if folder.path is None:
            yield _unset(folder.variable)
        elif folder.fault is None:
            yield ok(folder.variable, f"{folder.path} can be written to")
        elif folder.variable == "HF_HOME" and folder.readable and _offline(environment):
            yield ok(folder.variable, f"{folder.path} is read-only, and {_OFFLINE}=1 needs no more")
        else:
            yield fail(
                folder.variable,
                f"{folder.path}: {folder.fault}; mount a writable volume there, or set "
                f"{folder.variable} to one that user {os.getuid()} may write to",
            )


def _unset(variable: str) -> PreflightCheck:
    if variable == "HOME":
        return fail(variable, "not set; set HOME to a writable folder")
    return skip(variable, "not set: its library writes below HOME, or beside itself")


def _offline(environment: Mapping[str, str]) -> bool:
    return environment.get(_OFFLINE, "").lower() in ("1", "true", "yes", "on")


def shm_bytes(path: Path) -> int | None:
    """The size of shared memory; None if it cannot be told."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_frsize * found.f_blocks


def check_shm(size: int | None, *, ranks: int) -> PreflightCheck:
    """Whether shared memory holds what `ranks` workers of one pod exchange."""
    needed = _SHM_BYTES_ALONE if ranks == 1 else ranks * _SHM_BYTES_A_RANK
    how = "mount an emptyDir of medium Memory at /dev/shm"
    if size is None:
        return fail("shm", f"/dev/shm cannot be read; {how} with {needed // _MIB} MiB or more")
    if size < needed:
        return fail(
            "shm",
            f"/dev/shm holds {size // _MIB} MiB, {ranks} ranks need {needed // _MIB}; {how} of "
            "that sizeLimit or more",
        )
    return ok("shm", f"/dev/shm holds {size // _MIB} MiB, {needed // _MIB} are enough")


def check_vocabulary(environment: Mapping[str, str]) -> PreflightCheck:
    """Whether the file is in the folder that `TIKTOKEN_ENCODINGS_BASE` names, whole."""
    name, base = "vocabulary", environment.get(VOCABULARY)
    if not base:
        return fail(
            name,
            f"{VOCABULARY} is not set, so the first chat request would download "
            f"{VOCABULARY_FILE}; set it to the folder that holds the file",
        )
    path = Path(base) / VOCABULARY_FILE
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        why = f"{path}: {error.strerror}"
        return fail(name, f"{why}; put {VOCABULARY_FILE} there, or correct {VOCABULARY}")
    if digest != VOCABULARY_SHA256:
        wrong = f"its SHA-256 is {digest[:16]}..., not {VOCABULARY_SHA256[:16]}..."
        return fail(name, f"{path}: {wrong}; replace it")
    return ok(name, f"{path}, checksum right")
