"""The edge of quality: asks OpenAI-compatible servers, and reads what was recorded before."""
