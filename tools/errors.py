"""What ends a tool with one line and exit code 2."""


class ToolError(Exception):
    """What is wrong, where, and what to do about it, in one line."""
