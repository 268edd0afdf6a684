"""Measure two servers against each other: interleaved pairs of the same closed-loop load."""
