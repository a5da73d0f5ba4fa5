"""`Generator`: run a whole language model in the core, from prompts to texts."""

from __future__ import annotations

import threading
from collections.abc import Generator as Generated
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.batches import joined_input, split_rows
from sparsekit.engine.chat_template import Message
from sparsekit.engine.compiled_file import read_compiled
from sparsekit.engine.continuous_batching import Batch, Completion, RunningText
from sparsekit.engine.perplexity import WINDOW, perplexity, windows
from sparsekit.engine.prefix_caches import PrefixCaches
from sparsekit.engine.prompts import Prompts
from sparsekit.engine.text_stream import TextStream
from sparsekit.engine.tokenizing import TOKENIZER, check_texts
from sparsekit.io.hub_cache import local_folder
from sparsekit.progress import Progress

#: Texts that are decoded together.
_TEXTS = 8


class Generator:
    """A causal language model that runs without torch. Threads may share it.

    Args:
        model: a model folder or the name of one in the local hub cache, which is compiled in memory; or a file of
            `compile_model`.
        dtype: as in `compile_model`; None for "float32".
        embeddings: as in `compile_model`; None for the folder's type.
        tokenizer: path of tokenizer.json, with the tokenizer's other files beside it; None for the one in the model
            folder.
        context: limit of tokens per text, prompt included; None for all positions of the model.
        cache_dtype: type of the key-value cache: "float32", "bfloat16" in half the bytes, or "int8" with a scale for
            each head and token, in little more than a quarter.
        threads: size of the thread pool, for the whole process; None leaves it unchanged.
        mmap: memory-map a compiled file, so that processes share its pages; False reads it.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: the engine does not run the model, a file is damaged, or an argument is unknown or does not fit.
        RuntimeError: `threads` is given although torch is loaded, whose threads are used.
    """

    def __init__(
        self,
        model: Path | str,
        *,
        dtype: str | None = None,
        embeddings: str | None = None,
        tokenizer: Path | str | None = None,
        context: int | None = None,
        cache_dtype: str = "float32",
        threads: int | None = None,
        mmap: bool = True,
    ) -> None:
        runtime.check_cache_dtype(cache_dtype)
        if threads is not None:
            runtime.set_num_threads(threads)
        tokenizer_file = None if tokenizer is None else Path(tokenizer)
        if Path(model).is_file():
            if dtype is not None or embeddings is not None:
                raise ValueError("a compiled model has its own types; compile it again with compile_model")
            self._core = runtime.CompiledDecoder(read_compiled(Path(model), mmap))
        else:
            from sparsekit.engine.compiling import compile_model, is_decoder

            folder = local_folder(model)
            if not is_decoder(folder):
                raise ValueError(f"{folder} is an encoder; open it with Encoder")
            tokenizer_file = tokenizer_file or folder / TOKENIZER
            compiled = compile_model(folder, dtype=dtype or "float32", embeddings=embeddings)
            self._core = runtime.CompiledDecoder(compiled)
        if context is not None and not 1 <= context <= self._core.max_tokens:
            raise ValueError(f"context must be from 1 to the {self._core.max_tokens} tokens that the model has "
                             f"positions for, got {context}")  # fmt: skip
        self._prompts = Prompts(tokenizer_file)
        self._context = context or self._core.max_tokens
        self._cache_bytes = self._core.cache_bytes(cache_dtype)
        self._caches = PrefixCaches(self._core, self._context, cache_dtype)

    @property
    def context(self) -> int:
        """Limit of tokens per text, prompt included."""
        return self._context

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the vocabulary."""
        return self._core.vocabulary

    @property
    def cache_bytes(self) -> int:
        """Bytes of the key-value cache per token."""
        return self._cache_bytes

    @property
    def prompts(self) -> Prompts:
        """The tokenizer, chat template and generation settings."""
        return self._prompts

    def batch(self, most: int = _TEXTS) -> Batch:
        """An empty batch, in which texts of `prepare` are decoded together; one thread at a time may use it.

        Args:
            most: largest number of texts that run at a time; further ones wait.
        """
        return Batch(self._core, self._caches, self._prompts.end_tokens, most)

    def prepare(
        self, ids: Sequence[int], *, max_new_tokens: int = 256, stop: str | Sequence[str] = (), **sampling: Any
    ) -> RunningText:
        """A text for `batch`.

        Args:
            ids: token ids of the prompt.
            max_new_tokens: as for `generate`, like the others.
            stop: likewise.
            sampling: likewise.

        Raises:
            TypeError: as `generate`, like the others.
            ValueError: likewise.
        """
        if not 1 <= len(ids) < self._context:
            raise ValueError(f"a prompt must have from 1 to {self._context - 1} tokens, which leaves room for one more "
                             f"in the context, got {len(ids)}")  # fmt: skip
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        most = min(len(ids) + max_new_tokens, self._context)
        return RunningText(ids, most, self._prompts.sampling(sampling), TextStream(self._prompts.tokenizer, stop))

    @overload
    def generate(
        self,
        prompts: str,
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        show_progress: bool = False,
        **sampling: Any,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompts: Iterable[str],
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        show_progress: bool = False,
        **sampling: Any,
    ) -> list[str]: ...

    def generate(
        self,
        prompts: str | Iterable[str],
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        show_progress: bool = False,
        **sampling: Any,
    ) -> str | list[str]:
        """Continue a prompt, or several in one batch.

        Args:
            prompts: a text or several.
            max_new_tokens: limit of tokens of each continuation.
            stop: a string or several; a continuation ends before the first that occurs.
            cancel: event that another thread sets to end all continuations within a token.
            show_progress: show a bar on standard error.
            sampling: `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`: see `Sampling`. Defaults
                are those of generation_config.json.

        Returns:
            The continuation of a single prompt, or a list of continuations.

        Raises:
            TypeError: a prompt is not a str, or an option has a wrong type.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: a prompt has no tokens or more than the context, an option is unknown or out of range, or there
                is no tokenizer.
            FloatingPointError: logits are NaN.
        """
        given = [prompts] if isinstance(prompts, str) else prompts
        done = self.complete(
            given, max_new_tokens=max_new_tokens, stop=stop, cancel=cancel, show_progress=show_progress, **sampling
        )
        return done[0].text if isinstance(prompts, str) else [one.text for one in done]

    def complete(
        self,
        prompts: Iterable[str],
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        show_progress: bool = False,
        **sampling: Any,
    ) -> list[Completion]:
        """As `generate`, but return tokens, log-probabilities, finish reasons and times too.

        Args:
            prompts: texts.
            max_new_tokens: as for `generate`, like the others.
            stop: likewise.
            cancel: likewise.
            show_progress: likewise.
            sampling: likewise.

        Raises:
            TypeError: as `generate`, like the others.
            ValueError: likewise.
        """
        given = [self._prompts.tokenize(prompt) for prompt in check_texts(prompts)]
        texts = [self.prepare(ids, max_new_tokens=max_new_tokens, stop=stop, **sampling) for ids in given]
        with Progress[str](title="generate", unit="texts", total=len(texts), hidden=not show_progress) as progress:
            for text, _ in self._run(texts, cancel):
                progress.update(int(bool(text.completion.finish)))
        return [text.completion for text in texts]

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        **sampling: Any,
    ) -> Stream:
        """Continue a prompt piece by piece.

        Args:
            prompt: a text.
            max_new_tokens: as for `generate`, like the others.
            stop: likewise.
            cancel: likewise.
            sampling: likewise.

        Returns:
            An iterator over pieces of text; its `close` ends generation.

        Raises:
            TypeError: as `generate`, like the others.
            ValueError: likewise.
        """
        (checked,) = check_texts([prompt])
        return self._stream(self._prompts.tokenize(checked), max_new_tokens, stop, cancel, sampling)

    def chat(self, messages: Sequence[Message], **options: Any) -> str:
        """Answer messages, by the folder's chat template.

        Args:
            messages: each with a "role", "system", "user" or "assistant", and "content".
            options: those of `generate`.

        Raises:
            ModuleNotFoundError: jinja2 is not installed.
            ValueError: there is no template, or it refuses the messages; as `generate`.
        """
        return "".join(self.stream_chat(messages, **options))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        cancel: threading.Event | None = None,
        **sampling: Any,
    ) -> Stream:
        """As `chat`, piece by piece.

        Args:
            messages: as for `chat`.
            max_new_tokens: as for `stream`, like the others.
            stop: likewise.
            cancel: likewise.
            sampling: likewise.

        Raises:
            ModuleNotFoundError: as `chat`.
            ValueError: likewise.
        """
        return self._stream(self._prompts.tokenize_chat(messages), max_new_tokens, stop, cancel, sampling)

    def logits(self, ids: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Logits after every token.

        Args:
            ids: token ids of each sequence.

        Returns:
            For each sequence float32, shape [tokens, vocabulary].

        Raises:
            TypeError: ids are not integers.
            ValueError: ids are out of range, or a sequence has none or more than the context.
        """
        given = joined_input(ids, None)
        caches = [self._caches.make() for _ in ids]
        return split_rows(self._core.run(given.ids, given.offsets, caches, all_tokens=True), given.offsets)

    def perplexity(self, texts: Iterable[str], *, window: int = WINDOW, show_progress: bool = False) -> float:
        """Perplexity of texts; lower is better.

        The texts are concatenated, each followed by the end token, and cut into windows; every token of a window but
        the first is predicted. `sparsekit evaluate` computes the same for a model in PyTorch.

        Args:
            texts: texts to score.
            window: tokens per window.
            show_progress: show a bar on standard error.

        Raises:
            ValueError: `window` is below 2 or above the context, the texts do not fill one window, or there is no
                tokenizer.
        """
        if not 2 <= window <= self._context:
            raise ValueError(f"window must be from 2 to the {self._context} tokens of the context, got {window}")
        ids = [encoding.ids for encoding in self._prompts.tokenizer.encode_batch(list(texts))]
        return perplexity(self.logits, windows(ids, self._prompts.end_of_text, window), show_progress=show_progress)

    def _stream(
        self,
        ids: Sequence[int],
        max_new_tokens: int,
        stop: str | Sequence[str],
        cancel: threading.Event | None,
        sampling: Mapping[str, Any],
    ) -> Stream:
        text = self.prepare(ids, max_new_tokens=max_new_tokens, stop=stop, **sampling)
        return Stream(text.completion, self._run([text], cancel))

    def _run(
        self, texts: Sequence[RunningText], cancel: threading.Event | None
    ) -> Generated[tuple[RunningText, str], None, None]:
        try:
            with closing(self.batch().run(texts)) as running:
                for text, piece in running:
                    yield text, piece
                    if cancel is not None and cancel.is_set():
                        break
        finally:
            for text in texts:
                if not text.completion.finish:
                    text.finish("canceled")


class Stream:
    """Iterator over the pieces of a continuation; `completion` is the continuation so far."""

    def __init__(self, completion: Completion, run: Generated[tuple[RunningText, str], None, None]) -> None:
        self.completion = completion
        self._run = run

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        """The next piece that is not empty."""
        for _, piece in self._run:
            if piece:
                return piece
        raise StopIteration

    def close(self) -> None:
        """End the continuation; its cache is kept for texts with the same prefix."""
        self._run.close()
