"""Settings of all tests."""

import os

from hypothesis import settings

# The same examples each time where a red run must mean a change, not luck.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)  # a busy machine is no failure
settings.load_profile("here")
if os.environ.get("CI"):
    settings.load_profile("ci")
# Before torch is imported: MKL then sums in one order whatever the shapes, on every CPU.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
