"""PURE. A rollout as a state machine: plan, state, what is seen, what follows."""
