"""moe-serve: serve GPT-OSS on MI355X with padding whose loss is known."""

__version__ = "0.1.0"
