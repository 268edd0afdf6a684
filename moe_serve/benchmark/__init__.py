"""Benchmarks of two servers: measure interleaved pairs of runs, or read results, and judge them.

Takes two addresses or result files of three formats; returns a verdict over the pairs.
"""
