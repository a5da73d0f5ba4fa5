"""Files: atomic writes, untrusted reads, safetensors, the hub cache."""
