"""The demo: two real vLLM servers on this CPU, a measurement, a verdict."""

__version__ = "0.1.0"
