"""`Encoder`: a whole encoder in the core, from texts or token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.batches import batches_by_tokens, joined, token_array
from sparsekit.engine.compiled_file import POOLINGS, aligned_buffer
from sparsekit.engine.compiling import compile_model
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.engine.tokenizing import TOKENIZER, Tokenizer
from sparsekit.io.hub_cache import local_folder
from sparsekit.progress import Progress


class Encoder:
    """An encoder that runs without torch. Threads may share it.

    Args:
        model: a model folder, compiled in memory, or the name of one in the local hub cache; or a file of
            `compile_model`, which has its own types and pooling.
        dtype: see `compile_model`, as for the next two; "float32" if None.
        embeddings: "float32" if None.
        pooling: what the folder says if None.
        tokenizer: tokenizer.json; None for the one in the model folder.
        threads: of the pool, for the whole process; None leaves them as they are.
        mmap: map a file, so that processes share its memory; else read it.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the engine does not run the model; a file is damaged; an argument is unknown or does not fit.
        RuntimeError: `threads` are given and torch is loaded, whose threads are used.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        dtype: str | None = None,
        embeddings: str | None = None,
        pooling: str | None = None,
        tokenizer: Path | str | None = None,
        threads: int | None = None,
        mmap: bool = True,
    ) -> None:
        if threads is not None:
            runtime.set_num_threads(threads)
        self._tokenizer_file = None if tokenizer is None else Path(tokenizer)
        self._tokenizer: Tokenizer | None = None
        self._folder: Path | None = None
        if Path(model).is_file():
            _check_none(dtype=dtype, embeddings=embeddings, pooling=pooling)
            compiled = _read(Path(model), mmap)
        else:
            self._folder = local_folder(model)
            compiled = compile_model(
                self._folder, dtype=dtype or "float32", embeddings=embeddings or "float32", pooling=pooling
            )
        self._core = runtime.CompiledEncoder(compiled)

    @property
    def features(self) -> int:
        """Features of a hidden state, and of a vector."""
        return self._core.features

    @property
    def max_tokens(self) -> int:
        """Most tokens of a sequence that the model has positions for."""
        return self._core.max_tokens

    def run(self, ids: Sequence[Any], types: Sequence[Any] | None = None) -> list[NDArray[np.float32]]:
        """Hidden states of the last layer.

        Args:
            ids: token ids of each sequence, special tokens among them, without padding.
            types: token types of each sequence; 0 if None.

        Returns:
            For each sequence float32, shape [tokens, features].

        Raises:
            TypeError: ids or types are no integers.
            ValueError: the model has no such ids or types; a sequence is longer than `max_tokens`.
        """
        tokens, offsets = joined([token_array("ids", sequence) for sequence in ids])
        kinds = None
        if types is not None:
            kinds, others = joined([token_array("types", sequence) for sequence in types])
            if not np.array_equal(offsets, others):
                raise ValueError("types must have as many numbers for each sequence as ids")
        return np.split(self._core.run(tokens, offsets, kinds), offsets[1:-1]) if len(ids) else []

    def encode(
        self, texts: str | Iterable[str], *, batch_tokens: int = 2048, show_progress: bool = False
    ) -> NDArray[np.float32]:
        """One vector for each text, as `SentenceTransformer.encode`.

        Args:
            texts: texts, or one. Longer ones than the folder says, or `max_tokens`, are truncated, with a warning.
            batch_tokens: most tokens that are computed together.
            show_progress: show a bar on standard error.

        Returns:
            float32, shape [texts, features], in the order of the texts; [features] for one.

        Raises:
            TypeError: a text is no str.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: the model does not say how it pools; there is no tokenizer.
        """
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        if not self._core.pools:
            names = ", ".join(map(repr, filter(None, POOLINGS)))
            raise ValueError(f"the model does not say how tokens become one vector; give pooling=, one of {names}, to "
                             "Encoder, or to compile_model for a file")  # fmt: skip
        if isinstance(texts, str):
            return self._encode([texts], batch_tokens, show_progress).reshape(self.features)
        return self._encode(list(texts), batch_tokens, show_progress)

    def _encode(self, texts: Sequence[str], batch_tokens: int, show_progress: bool) -> NDArray[np.float32]:
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"texts must be str, got {type(text).__name__}")
        ids = self._open_tokenizer().ids(texts)
        output = np.empty((len(ids), self.features), np.float32)
        with Progress[str](title="encode", unit="texts", total=len(ids), hidden=not show_progress) as progress:
            for batch in batches_by_tokens([one.size for one in ids], batch_tokens):
                output[batch] = self._core.encode(*joined([ids[number] for number in batch]))
                progress.update(len(batch))
        return output

    def _open_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            file = self._tokenizer_file
            if file is None:
                if self._folder is None:
                    raise ValueError(f"a compiled model has no tokenizer; give Encoder(..., tokenizer=) a {TOKENIZER}, "
                                     "or call run with token ids")  # fmt: skip
                file = read_modules(self._folder).encoder / TOKENIZER
            self._tokenizer = Tokenizer(file, self._folder or file.parent, self.max_tokens)
        return self._tokenizer


def _check_none(**arguments: str | None) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"a compiled model has its own {given[0]}; compile it again with compile_model({given[0]}=)")


def _read(file: Path, mmap: bool) -> NDArray[np.uint8]:
    """The bytes of a file at a multiple of 64, mapped or in memory of their own."""
    size = file.stat().st_size
    if mmap and size:
        return np.memmap(file, np.uint8, "r")
    buffer = aligned_buffer(size)
    with file.open("rb") as opened:
        if opened.readinto(buffer.data) != size:
            raise ValueError(f"{file} was cut off while it was read; write it by rename")
    return buffer
