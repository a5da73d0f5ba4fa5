"""Compare functions by time, fairly."""
