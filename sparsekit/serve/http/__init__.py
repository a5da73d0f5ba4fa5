"""HTTP: bodies within limits, errors, streams, the application."""
