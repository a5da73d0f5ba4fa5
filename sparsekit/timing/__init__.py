"""Compare the running times of functions fairly."""
