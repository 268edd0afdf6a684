"""The demo: two real vLLM servers on a CPU, compared by the product's own probe, judge and report.

Takes a scenario and two processor cores; returns a report folder whose files `moe-serve canary`
reads.
"""

__version__ = "0.1.0"
