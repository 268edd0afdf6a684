"""Workers' records as Prometheus metrics."""
