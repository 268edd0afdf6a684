"""Pure: paired blocks, the speed-up's estimate, the judge. No clock, environment or I/O."""
