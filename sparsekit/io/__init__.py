"""Files: written at once, read with care, found in the hub's cache."""
