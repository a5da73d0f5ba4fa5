"""Lock folders against other processes, if the file system supports locks; waiting has a timeout."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Timeout in seconds: locks are held while folders are exchanged, not while weights are written.
_LONGEST_WAIT, _PAUSE = 60.0, 0.02


def try_lock(handle: int) -> bool:
    """Lock an open folder until its handle is closed; False if another process holds it or locks are not supported."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def release(handle: int) -> None:
    """Unlock and close an open folder, also for children that were forked meanwhile."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _holder(handle: int) -> str:
    """The process that holds the lock of an open folder, if known."""
    status = os.fstat(handle)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[5] == place:
                return f"process {fields[4]}"
    return "another process"


def _wait_for(handle: int, folder: Path) -> None:
    """Lock an open folder, or continue without a lock if locks are not supported."""
    end = time.monotonic() + _LONGEST_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(f"{folder} has been locked for {_LONGEST_WAIT:.0f} s by {_holder(handle)}; wait for "
                                   "it or end it, and save again") from None  # fmt: skip
            time.sleep(_PAUSE)
        except OSError:
            return


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Context that one process at a time can enter, if locks are supported.

    Raises:
        TimeoutError: another process has held the lock for a minute.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that is writable but not readable
        yield
        return
    try:
        _wait_for(handle, folder)
        yield
    finally:
        release(handle)
