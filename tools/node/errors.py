"""What stops the node: one line that says what, where and what to do."""


class NodeError(Exception):
    """The node cannot start, or a part of it failed."""


class CommandFailed(NodeError):
    """A command ended with another code than 0, or took too long."""
