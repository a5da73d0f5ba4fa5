"""The benchmark of language models: prefill, decode and memory, each engine in a separate process."""
