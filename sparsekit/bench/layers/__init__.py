"""The layer benchmark: one linear layer."""
