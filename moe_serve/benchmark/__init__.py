"""Benchmarks as evidence: read result files, judge interleaved pairs of two arms."""
