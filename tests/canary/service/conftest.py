"""The service, for every test of it."""

from tests.canary.service.serving import serving

__all__ = ["serving"]
