"""How a stopped run resumes: finished stages on disk, the run's identity, disk space."""
