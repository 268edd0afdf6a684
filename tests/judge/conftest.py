"""The service, for every test of it."""

from tests.judge.serving import serving

__all__ = ["serving"]
