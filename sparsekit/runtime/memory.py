"""Memory of this process: keep freed memory, query resident memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: Parameters of glibc's `mallopt`, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: glibc's limit for the mmap threshold.
_LARGEST_BLOCK = 32 << 20
#: Linux: sizes of this process in pages; the second field is resident memory.
_SIZES = Path("/proc/self/statm")


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Let the C library keep up to `limit` bytes of freed memory, instead of returning it to the system.

    Layers' outputs are freed and allocated again in every call, which costs page faults. Other engines use memory
    pools. This affects everything in the process that allocates through the C library, torch included.

    Args:
        limit: bytes to keep at the top of the heap.

    Returns:
        Whether it took effect: False if the C library is not glibc.

    Raises:
        ValueError: `limit` is negative.
    """
    if limit < 0:
        raise ValueError(f"limit must not be negative, got {limit}")
    try:
        library = ctypes.CDLL(None)
        mallopt = library.mallopt
        _ = library.gnu_get_libc_version
    except (OSError, AttributeError):
        return False
    capped = min(limit, 2**31 - 1)
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, capped))


def resident_bytes() -> int | None:
    """Resident memory of this process in bytes, mapped files included; None on systems other than Linux."""
    try:
        pages = int(_SIZES.read_text().split()[1])
    except FileNotFoundError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
