"""Replace a folder by a new one at once, and read it whole, so that there is never half of one."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD
#: What the new folder is called while it is written.
_NEW = "new"


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
    """Exchange the names of two folders; in three steps where it cannot be one, the old one being `aside` meanwhile."""
    if _exchanged(new, target):
        return
    target.rename(aside)
    try:
        new.rename(target)
    except OSError:
        aside.rename(target)
        raise
    aside.rename(new)


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


def _is_locked(handle: int, *, wait: bool) -> bool:
    """Lock a folder until its handle is closed; False if another process has it, or if locks do not work there."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Have other processes wait here, where locks work."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _is_locked(handle, wait=True)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(target: Path) -> None:
    """Remove what processes that were killed left beside a folder: what nobody has locked."""
    name = re.compile(rf"\.{re.escape(target.name)}-[a-z0-9_]{{8}}")  # as mkdtemp makes them
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name) or not {entry.name for entry in path.iterdir()} <= {_NEW}:
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            if _is_locked(handle, wait=False):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(handle)


def _place_beside(target: Path) -> tuple[Path, int]:
    """A folder of our own beside another, and a handle that keeps it locked."""
    with _one_at_a_time(target.parent):
        with contextlib.suppress(OSError):  # others' folders need not be ours to read
            _remove_leftovers(target)
        beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        handle = os.open(beside, os.O_RDONLY)
        _is_locked(handle, wait=False)
        return beside, handle


def _put_in_place(new: Path, target: Path, aside: Path, is_replaced: Callable[[str], bool]) -> None:
    """Give a new folder the name of the old one, if there is one, and what is kept of it."""
    if target.exists():
        _keep(target, new, is_replaced)
        shutil.copymode(target, new)
    _flush(new)
    if target.exists():
        _exchange(new, target, aside)
    else:
        new.rename(target)
    _flush(target.parent)


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
        ValueError: `folder` is a file, or this process works in it.
    """
    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{folder} must be a folder or not be there yet, it is a file")
    if Path.cwd().is_relative_to(target):
        raise ValueError(f"{folder} is where this process works and cannot be replaced; give a folder inside it")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, handle = _place_beside(target)
    new = beside / _NEW
    try:
        new.mkdir()  # with the usual permissions; `beside` has narrow ones
        yield new
        for path in new.iterdir():
            if path.is_file():
                path.chmod(0o644)  # safetensors writes for the owner's eyes only
                _flush(path)
        with _one_at_a_time(target.parent):
            _put_in_place(new, target, beside.with_name(f"{beside.name}-old"), is_replaced)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(handle)


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
