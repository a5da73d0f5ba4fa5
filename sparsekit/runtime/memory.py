"""Memory of this process: keep what is freed, say what is resident."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

#: glibc's names of what `mallopt` sets, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: The most that glibc takes for blocks of their own.
_LARGEST_BLOCK = 32 << 20
#: Linux: sizes of this process, in pages; the second one is what is resident.
_SIZES = Path("/proc/self/statm")


def keep_freed_memory(limit: int = 1 << 30) -> bool:
    """Have the C library keep memory that this process frees, up to `limit` bytes, instead of giving it back at once.

    The outputs of layers are freed and allocated again in every call; new pages of the system cost time in each. Other
    engines keep pools of their own. It concerns everything in the process that allocates through the C library, torch
    included.

    Args:
        limit: bytes at the end of the heap that stay.

    Returns:
        Whether it was done: False where the C library is not glibc.

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
    """Memory of this process that is in RAM, pages of mapped files among it; None where the system is not Linux."""
    try:
        pages = int(_SIZES.read_text().split()[1])
    except FileNotFoundError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
