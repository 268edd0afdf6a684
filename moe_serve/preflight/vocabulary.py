"""Harmony's vocabulary: GPT-OSS's chat format needs it, and fetches it at the first request."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from moe_serve.preflight.checks import PreflightCheck, fail, ok

BASE = "TIKTOKEN_ENCODINGS_BASE"
FILE = "o200k_base.tiktoken"
# As openai-harmony itself demands it of the file that it loads.
SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
_NAME = "vocabulary"


def check_vocabulary(environment: Mapping[str, str]) -> PreflightCheck:
    """Whether the file is where `TIKTOKEN_ENCODINGS_BASE` says, whole."""
    base = environment.get(BASE)
    if not base:
        return fail(
            _NAME,
            f"{BASE} is not set, so the first chat request would download {FILE}; set it to the "
            "folder that holds the file",
        )
    path = Path(base) / FILE
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return fail(_NAME, f"{path}: {error.strerror}; put {FILE} there, or correct {BASE}")
    if digest != SHA256:
        return fail(
            _NAME, f"{path}: its SHA-256 is {digest[:16]}..., not {SHA256[:16]}...; replace it"
        )
    return ok(_NAME, f"{path}, checksum right")
