"""The only place that knows Kubernetes: routes, arms, state, lease, Events."""
