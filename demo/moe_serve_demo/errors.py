"""The demo's one error."""

from moe_serve.errors import MoeServeError


class DemoError(MoeServeError):
    """The demo cannot start or continue; the message says what is missing."""
