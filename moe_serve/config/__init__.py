"""Policy, rollout and result files, read strictly: every unknown key and wrong value is named."""
