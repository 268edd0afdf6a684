"""Every error that moe-serve raises on purpose.

    MoeServeError
     +-- UsageError            bad input: a flag, a key, a file (exit code 2)
     +-- PaddingUnsafe         pads that lose more than the loss budget allows
     +-- UnknownVllm           vLLM's functions no longer look as known: nothing was patched
     +-- RecordError           a worker's record file cannot be read or written
     +-- SourceError           a history for the judge cannot be had
     +-- RolloutError          a rollout cannot be carried on: its state, or the cluster
     +-- BenchError            a benchmark cannot start or go on
     +-- ProbeError            a server that is probed does not answer

A message says what is wrong, where, and what to do, in one line.
"""


class MoeServeError(Exception):
    """Base of all errors of this project."""


class UsageError(MoeServeError):
    """Bad input: the message names the flag or key, its value, and what is allowed."""


class PaddingUnsafe(MoeServeError):
    """Pads that would lose more live weights than the declared budget."""


class UnknownVllm(MoeServeError):
    """vLLM's functions no longer look as known, so nothing was patched."""


class RecordError(MoeServeError):
    """A worker's record file cannot be read or written; `reason` in one word, for a metric."""

    def __init__(self, message: str, *, reason: str = "unwritable") -> None:
        super().__init__(message)
        self.reason = reason


class SourceError(MoeServeError):
    """A history for the judge cannot be had: the message names the source and what it said."""


class RolloutError(MoeServeError):
    """A rollout cannot be carried on now: the message names what the cluster or its state said."""


class BenchError(MoeServeError):
    """A server under a benchmark cannot be reached or answers nothing: which one, and why."""


class ProbeError(MoeServeError):
    """A server that is probed does not answer, or not as needed."""
