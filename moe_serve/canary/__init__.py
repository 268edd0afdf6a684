"""From samples of two arms to a decision: promote, roll back, or keep going."""
