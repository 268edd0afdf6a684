"""Real vLLM on one GPU machine without a network: the bundle that travels there, and its stages."""
