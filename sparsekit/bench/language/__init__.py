"""The benchmark of language models: prefill, decode, memory, each engine in a process of its own."""
