"""Replace a folder by a new one at once, so that there is never half of one."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD


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


@contextmanager
def replaced_folder(folder: Path, is_replaced: Callable[[str], bool]) -> Iterator[Path]:
    """A new, empty folder to write to, which becomes `folder` when the block ends; with an error it vanishes instead.

    Whoever looks at `folder` finds all of the old one or all of the new one; on systems that cannot exchange two names
    (neither Linux nor macOS, or an old file system) there is a moment without either.

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
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    new = beside / "new"
    try:
        new.mkdir()  # with the usual permissions; `beside` has narrow ones
        yield new
        for path in new.iterdir():
            if path.is_file():
                path.chmod(0o644)  # safetensors writes for the owner's eyes only
        if target.exists():
            _keep(target, new, is_replaced)
            shutil.copymode(target, new)
        files = [path for path in new.iterdir() if path.is_file() and not path.is_symlink()]
        for path in (*files, new):
            _flush(path)
        if target.exists():
            _exchange(new, target, beside.with_name(f"{beside.name}-old"))
        else:
            new.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
