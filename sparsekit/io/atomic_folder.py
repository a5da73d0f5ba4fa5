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
#: What the new folder is called while it is written, and the old one where it is moved out of the way.
_NEW, _OLD = "new", "old"
#: What the system says of a folder that cannot be moved, and of files that cannot be written.
_STUCK = (errno.EBUSY, errno.EXDEV)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders at once; False where the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None), "renameat2", None)
        return rename is not None and rename(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0
    if sys.platform == "darwin":
        return bool(ctypes.CDLL(None).renamex_np(*names, _EXCHANGE) == 0)
    return False


def _exchange(new: Path, target: Path, aside: Path) -> None:
    """Exchange the names of two folders; in two steps where it cannot be one, the old one being `aside` then."""
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
    """The same file under a second name; a copy where there are no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _keep(old: Path, new: Path, is_replaced: Callable[[str], bool]) -> None:
    """Take over what else lies in the old folder."""
    for entry in old.iterdir():
        there = new / entry.name
        if is_replaced(entry.name) or there.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, there, symlinks=True, copy_function=_link)
        else:
            _link(entry, there)


def _flush(path: Path) -> None:
    """Have a file or folder on disk, so that a power cut after the exchange cannot take it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Remove a folder as far as it can be, what is in folders that are read-only too."""
    for parent, names, _ in os.walk(folder):
        for path in (Path(parent), *(Path(parent, name) for name in names)):
            with contextlib.suppress(OSError):
                if not path.is_symlink():
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Remove what processes that were killed left beside a folder: what nobody has locked.

    Where one was killed between the two steps of an exchange, the old folder gets its name back.
    """
    name = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")  # as mkdtemp makes them
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
    """A folder of our own beside another, and a handle that keeps it locked."""
    with one_at_a_time(target.parent):
        with contextlib.suppress(OSError):  # others' folders need not be ours to read
            _remove_leftovers(target)
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        handle = os.open(beside, os.O_RDONLY)
        try_lock(handle)
        return beside, handle


def _put_in_place(new: Path, target: Path, is_replaced: Callable[[str], bool]) -> None:
    """Give a new folder the name of the old one, if there is one, and what is kept of it."""
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
    with contextlib.suppress(OSError):  # the new one is in place: nothing that fails from here on is an error
        _flush(target.parent)


def _flush_files(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o644)  # safetensors writes for the owner's eyes only
            _flush(path)


@contextmanager
def replaced_folder(folder: Path, is_replaced: Callable[[str], bool]) -> Iterator[Path]:
    """A new, empty folder to write to, which becomes `folder` when the block ends; with an error it vanishes instead.

    Whoever looks at `folder` finds all of the old one or all of the new one; on systems that cannot exchange two names
    (neither Linux nor macOS, or an old file system) there is a moment without either. Of several processes that write
    the same folder at once, the last one's stays. What a killed process left beside the folder goes with the next call.

    Args:
        folder: what to make or replace; folders above it are made.
        is_replaced: whether an entry of this name goes with the old folder; all others are kept.

    Raises:
        OSError: it cannot be written; the old one is as it was.
        TimeoutError: another process keeps the folder above locked.
        PermissionError, ValueError: as `checked_destination`, before anything is written.
    """
    target = checked_destination(folder, is_replaced)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, handle = _place_beside(target)
    new = beside / _NEW
    try:
        new.mkdir()  # with the usual permissions; `beside` has narrow ones
        yield new
        _flush_files(new)
        with one_at_a_time(target.parent):
            _put_in_place(new, target, is_replaced)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(error.errno, f"{folder} cannot be written and is as it was: {error.strerror}") from error
    finally:
        if target.exists() or not (beside / _OLD).exists():  # else the next call gives the old one its name back
            _remove(beside)
        release(handle)


def read_whole(folder: Path, read: Callable[[], _T]) -> _T:
    """What `read` returns; it is called again when the folder was replaced meanwhile, so it sees one or the other.

    Raises:
        OSError, ValueError: as `read`, when the folder is still the same.
    """
    while True:
        handle = os.open(folder, os.O_RDONLY)  # while it is open, no other folder can have its number
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
