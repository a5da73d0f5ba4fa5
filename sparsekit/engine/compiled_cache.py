"""Cache compiled models in the user's cache folder, so that a model folder is compiled once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sparsekit import runtime
from sparsekit.engine.compiled_file import VERSION, read_compiled
from sparsekit.io.cache_folder import cache_folder

#: Suffixes of the files that determine the compiled model.
_SOURCES = (".json", ".safetensors")


def cached_encoder(
    folder: Path, *, dtype: str, embeddings: str | None, pooling: str | None, mmap: bool
) -> runtime.CompiledEncoder:
    """The compiled encoder of a model folder; compiles it if the cache has no valid entry.

    Raises:
        OSError: the cache cannot be written.
        ValueError: as `compile_model`.
    """
    file = cache_folder("compiled") / f"{_key(folder, dtype, str(embeddings), str(pooling))}.sparsekit"
    with suppress(FileNotFoundError, ValueError):  # ValueError: the cached file is damaged
        return runtime.CompiledEncoder(read_compiled(file, mmap))
    from sparsekit.engine.compiling import compile_model, is_decoder

    if is_decoder(folder):
        raise ValueError(f"{folder} is a language model; open it with Generator")
    compile_model(folder, file, dtype=dtype, embeddings=embeddings, pooling=pooling)
    return runtime.CompiledEncoder(read_compiled(file, mmap))


def _key(folder: Path, *arguments: str) -> str:
    """Cache key: a hash of everything that a compiled model depends on."""
    facts = (str(VERSION), runtime.version(), runtime.current_isa(), *arguments, *_state(folder.resolve()))
    return hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()


def _state(folder: Path) -> Iterator[str]:
    """Path of the folder, and size and times of its files, which change when one is written, replaced or renamed."""
    yield str(folder)
    for path in sorted((*folder.iterdir(), *folder.glob("*/*"))):
        if path.suffix in _SOURCES and path.is_file():
            status = path.stat()
            yield f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
