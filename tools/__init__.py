"""Programs for the development of moe-serve. They are in no wheel."""
