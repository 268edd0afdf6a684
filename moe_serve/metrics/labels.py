"""Labels of the exporter's metrics that the judge reads, and their special values."""

# Of `config_info`: a digest of all of a worker's configuration but its pads and their policy.
WORKER_CONFIG_DIGEST = "worker_config_digest"
# What stands for a value that a pod does not state.
UNKNOWN = "unknown"
