"""Where the workers' records lie, for those who write and those who read."""

RECORD_DIR = "MOE_SERVE_RECORD_DIR"
DEFAULT_RECORD_DIR = "/dev/shm/moe-serve"
