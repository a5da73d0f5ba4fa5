"""Serve models over HTTP: the protocols of OpenAI and Cohere on top of `sparsekit.engine`, batching across requests."""
