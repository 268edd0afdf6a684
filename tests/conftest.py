"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples each time where a red run must mean a change, not luck.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
