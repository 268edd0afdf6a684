"""The embedded main job: two real vLLM servers on this CPU, a measurement, a verdict."""
