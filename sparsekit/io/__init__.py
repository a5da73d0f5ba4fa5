"""Files: atomic writes, untrusted reads, safetensors, the hub's cache."""
