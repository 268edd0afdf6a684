"""The exporter: takes the workers' records and serves them as Prometheus metrics.

It runs in a process of its own beside vLLM, reads the record files anew at each scrape, and returns
text in Prometheus's format or in OpenMetrics.
"""
