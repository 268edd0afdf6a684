"""Print this image's /app/versions.txt, in the form that AMD's serving image has it."""

from importlib.metadata import version

print("BASE_IMAGE: none")
print(f"TRITON_BRANCH: v{version('triton')}")
print(f"PYTORCH_BRANCH: v{version('torch')}")
print("AITER_BRANCH: none")
