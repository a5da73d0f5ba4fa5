"""Measure a model as it is, for its page: speed beside every installed engine, quality, layers, memory."""
