"""The error that the demo raises."""

from moe_serve.errors import MoeServeError


class DemoError(MoeServeError):
    """The demo cannot start or continue; the message says why, and what to do."""
