"""FlyDSL operators."""
