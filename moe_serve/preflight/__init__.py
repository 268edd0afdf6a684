"""Checks whether a pod is fit to serve: before the model is loaded, at the start, while it serves.

Each takes facts of node, environment, model or records and returns `PreflightCheck`s; the detail of
a failed one says what to do.
"""
