"""One Kubernetes node on a plain Linux machine: built from source, in namespaces of its own.

`python -m tools.node up` starts it, `down` ends it and leaves nothing.
"""
