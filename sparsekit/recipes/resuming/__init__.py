"""Resume a stopped run: finished stages on disk, the run's identity, disk space."""
