"""Nothing in here is a test: `make fuzz` runs the fuzzers."""

collect_ignore_glob = ["*.py"]
