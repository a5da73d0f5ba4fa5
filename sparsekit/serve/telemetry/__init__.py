"""What a server tells about itself: metrics, access log, times in headers."""
