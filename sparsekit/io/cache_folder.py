"""The folder of the user's cache that holds what this library can make again."""

from __future__ import annotations

import os
from pathlib import Path

_WHAT_TO_DO = "set XDG_CACHE_HOME to a folder that can be, or do not ask for the cache"


def cache_folder(name: str) -> Path:
    """The folder of this name in `$XDG_CACHE_HOME/sparsekit`, or in `~/.cache/sparsekit`; made, and writable.

    Raises:
        OSError: it cannot be made, or this user may not write there.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative one counts for none, says the specification
    folder = (home if home.is_absolute() else Path("~/.cache").expanduser()) / "sparsekit" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror}); {_WHAT_TO_DO}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written by this user; {_WHAT_TO_DO}")
    return folder
