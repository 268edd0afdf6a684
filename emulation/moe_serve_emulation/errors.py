"""The emulation's one error."""

from moe_serve.errors import MoeServeError


class EmulationError(MoeServeError):
    """The emulated kernel cannot do what it is called for; the message says what to change."""
