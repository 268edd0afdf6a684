"""From a worker to whoever reads it: one record file a rank."""
