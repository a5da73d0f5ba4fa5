"""Replace a folder atomically, and read it consistently."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sparsekit.io.destination import checked_destination
from sparsekit.io.locks import one_at_a_time, release, try_lock

_T = TypeVar("_T")

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD
#: Name prefixes of the new folder while it is written, and of the old one when moved aside.
_NEW, _OLD = "new", "old"
#: Error codes for a folder that cannot be moved, and for files that cannot be written.
_STUCK = (errno.EBUSY, errno.EXDEV)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders atomically; False if the system or file system does not support it."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None), "renameat2", None)
        return rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
    if sys.platform == "darwin":
        return bool(ctypes.CDLL(None).renamex_np(*names, _EXCHANGE) == 0)
    return False


def _exchange(new: Path, target: Path, aside: Path) -> None:
    """Exchange two folders; if that is not supported, in two steps, with the old one moved to `aside`."""
    if _exchanged(new, target):
        return
    target.rename(aside)
    try:
        new.rename(target)
    except OSError as error:
        try:
            aside.rename(target)
        except OSError:
            raise OSError(f"{target} cannot be put in place ({error}); the old one is {aside} now, and the next save "
                          "moves it back first") from error  # fmt: skip
        raise


def _link(source: str | Path, target: str | Path) -> None:
    """Hard-link a file; copy it if links are not supported."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _keep(old: Path, new: Path, is_replaced: Callable[[str], bool]) -> None:
    """Link all other entries of the old folder into the new one."""
    for entry in old.iterdir():
        there = new / entry.name
        if is_replaced(entry.name) or there.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, there, symlinks=True, copy_function=_link)
        else:
            _link(entry, there)


def _flush(path: Path) -> None:
    """Flush a file or folder to disk, so that it survives a power failure after the exchange."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder as far as possible, including the contents of read-only subfolders."""
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove leftovers of killed processes beside a folder: those that nobody has locked.

    If one was killed between the two steps of an exchange, the old folder is restored.
    """
    name = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")  # names by mkdtemp
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name) or not {entry.name for entry in path.iterdir()} <= {_NEW, _OLD}:
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            if try_lock(handle):
                if (path / _OLD).exists() and not target.exists():
                    (path / _OLD).rename(target)
                _remove(path)
        finally:
            release(handle)


def _place_beside(target: Path) -> tuple[Path, int]:
    """Create a temporary folder beside another, locked by the returned handle."""
    with one_at_a_time(target.parent):
        with contextlib.suppress(OSError):  # other users' folders may be unreadable
            _remove_leftovers(target)
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        handle = os.open(beside, os.O_RDONLY)
        try_lock(handle)
        return beside, handle


def _put_in_place(new: Path, target: Path, is_replaced: Callable[[str], bool]) -> None:
    """Move a new folder into the place of the old one, with the entries to keep."""
    if target.exists():
        _keep(target, new, is_replaced)
        shutil.copymode(target, new)
    _flush(new)
    try:
        if target.exists():
            _exchange(new, target, new.with_name(_OLD))
        else:
            new.rename(target)
    except OSError as error:
        if error.errno not in _STUCK:
            raise
        raise OSError(error.errno, f"{target} cannot be moved and is as it was ({error.strerror}): something is mounted"
                      " there, or it is part of a container's image; save to another folder") from error  # fmt: skip
    with contextlib.suppress(OSError):  # the new folder is in place: later failures are not errors
        _flush(target.parent)


def _flush_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644)  # safetensors creates files with mode 600
            _flush(path)


@contextmanager
def replaced_folder(folder: Path, is_replaced: Callable[[str], bool]) -> Iterator[Path]:
    """Context with a new, empty folder to write to, which replaces `folder` at the end; on an error it is removed.

    Readers of `folder` see all of the old one or all of the new one; on systems without atomic exchange (neither Linux
    nor macOS, or an old file system) there is a moment without either. If several processes write the same folder, the
    last one wins. Leftovers of killed processes are removed by the next call.

    Args:
        folder: folder to create or replace; parents are created.
        is_replaced: whether an old entry of this name is removed; all others are kept.

    Raises:
        OSError: it cannot be written; the old one is unchanged.
            TimeoutError: another process keeps the parent folder locked.
        PermissionError, ValueError: as `checked_destination`, before anything is written.
    """
    target = checked_destination(folder, is_replaced)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, handle = _place_beside(target)
    new = beside / _NEW
    try:
        new.mkdir()  # with default permissions; those of `beside` are narrow
        yield new
        _flush_files(new)
        with one_at_a_time(target.parent):
            _put_in_place(new, target, is_replaced)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, f"{folder} cannot be written and is as it was: {error.strerror}") from error
    finally:
        if target.exists() or not (beside / _OLD).exists():  # else the next call restores the old one
            _remove(beside)
        release(handle)


def read_whole(folder: Path, read: Callable[[], _T]) -> _T:
    """Result of `read`, which is called again if the folder was replaced meanwhile, so that it sees one or the other.

    Raises:
        OSError, ValueError: as `read`, if the folder has not changed.
    """
    while True:
        handle = os.open(folder, os.O_RDONLY)  # while open, its inode number is not reused
        try:
            found = read()
        except (OSError, ValueError):
            if _is_still(folder, handle):
                raise
        else:
            if _is_still(folder, handle):
                return found
        finally:
            os.close(handle)


def _is_still(folder: Path, handle: int) -> bool:
    return os.path.samestat(os.fstat(handle), folder.stat())
