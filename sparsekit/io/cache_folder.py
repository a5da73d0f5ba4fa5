"""The user's cache folder, for files that can be recomputed."""

from __future__ import annotations

import os
from pathlib import Path

_WHAT_TO_DO = "set XDG_CACHE_HOME to a folder that can be, or do not ask for the cache"


def cache_folder(name: str) -> Path:
    """The folder of this name in `$XDG_CACHE_HOME/sparsekit` or `~/.cache/sparsekit`; created if missing.

    Raises:
        OSError: it cannot be created or is not writable.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))  # the specification ignores relative paths
    folder = (home if home.is_absolute() else Path("~/.cache").expanduser()) / "sparsekit" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror}); {_WHAT_TO_DO}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written by this user; {_WHAT_TO_DO}")
    return folder
