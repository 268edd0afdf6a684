"""The judge as a web service, for rollout engines and for a person on call."""
