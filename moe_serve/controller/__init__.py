"""The rollout controller: observe, decide, write down, act; again and again."""
