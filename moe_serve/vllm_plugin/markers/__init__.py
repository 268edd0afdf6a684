"""Time the fused-MoE kernel where it runs: start and stop markers around a few layers' calls."""
