"""Do both arms answer the same: the comparison is pure, probes stand apart from it."""
