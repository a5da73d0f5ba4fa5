"""Time functions against each other."""
