"""The error that the emulation raises."""

from moe_serve.errors import MoeServeError


class EmulationError(MoeServeError):
    """The emulation cannot run as called; the message says why, and what to change."""
