"""Two small GPT-OSS models that have learned exact tasks, so that right answers can be counted.

Takes a MoE width; returns a folder that vLLM serves.
"""
