"""The `moe-serve` command: one verb a module, each parses, calls, prints."""
