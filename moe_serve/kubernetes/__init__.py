"""The only place that knows Kubernetes: routes, tracks, state, lease, Events."""
