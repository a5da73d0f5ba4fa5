"""The model benchmark: a whole encoder."""
