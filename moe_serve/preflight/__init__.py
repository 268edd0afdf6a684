"""Is a pod fit to serve: checks whose every failure says what to do."""
