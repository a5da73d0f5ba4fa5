"""`Encoder`: run a whole encoder in the core, from texts or token ids."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.batches import THREAD_TOKENS, Input, batches_by_tokens, joined_input, offsets_of, split_rows
from sparsekit.engine.compiled_file import POOLINGS, TASKS, read_compiled
from sparsekit.engine.labels import Classification, Labels
from sparsekit.engine.sentence_modules import read_modules
from sparsekit.engine.spans import AGGREGATIONS, Span, spans_of
from sparsekit.engine.tokenizing import TOKENIZER, Text, Tokenizer, Tokens, check_texts, read_options, tokens_of
from sparsekit.io.file_names import CONFIG, SENTENCE_CONFIG
from sparsekit.io.hub_cache import local_folder
from sparsekit.progress import Progress
from sparsekit.wording import counted


class Encoder:
    """An encoder that runs without torch. Threads may share it.

    Args:
        model: a model folder or the name of one in the local hub cache, which is compiled in memory; or a file of
            `compile_model`, whose types and pooling are fixed.
        dtype: as in `compile_model`; None for "float32".
        embeddings: as in `compile_model`; None for the folder's type.
        pooling: as in `compile_model`; None for the folder's own.
        tokenizer: path of tokenizer.json; None for the one in the model folder.
        threads: size of the thread pool, for the whole process; None leaves it unchanged.
        mmap: memory-map a compiled file, so that processes share its pages; False reads it.
        cache: keep the compiled model of a folder in `$XDG_CACHE_HOME/sparsekit/compiled` or `~/.cache`, and memory-map
            it as long as the folder's files, the arguments, this library and the instruction set do not change. Old
            entries are never deleted.

    Raises:
        FileNotFoundError: there is no such model.
        OSError: with `cache`, the cache cannot be written.
        ValueError: the engine does not run the model, a file is damaged, or an argument is unknown or does not fit.
        RuntimeError: `threads` is given although torch is loaded, whose threads are used.
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
        cache: bool = False,
    ) -> None:
        if threads is not None:
            runtime.set_num_threads(threads)
        self._tokenizer_file = None if tokenizer is None else Path(tokenizer)
        self._tokenizer: Tokenizer | None = None
        self._folder: Path | None = None
        if Path(model).is_file():
            _check_none(dtype=dtype, embeddings=embeddings, pooling=pooling)
            self._core = runtime.CompiledEncoder(read_compiled(Path(model), mmap))
        else:
            self._folder = local_folder(model)
            arguments = dtype or "float32", embeddings, pooling
            self._core = _cached(self._folder, *arguments, mmap) if cache else _compiled(self._folder, *arguments)
        self._task = next(name for name, number in TASKS.items() if number == self._core.task)
        self._labels_tokens = self._task == "token_classification"
        self._has_warned = False

    @property
    def task(self) -> str:
        """What the model computes: "embedding", "classification" or "token_classification"."""
        return self._task

    @property
    def features(self) -> int:
        """Size of hidden states and of pooled vectors."""
        return self._core.features

    @property
    def max_tokens(self) -> int:
        """Longest sequence, in tokens, that the model has positions for."""
        return self._core.max_tokens

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the vocabulary."""
        return self._core.vocabulary

    def run(self, ids: Sequence[Any], types: Sequence[Any] | None = None) -> list[NDArray[np.float32]]:
        """Hidden states of the last layer.

        Args:
            ids: token ids of each sequence, with special tokens, without padding.
            types: token types of each sequence; None for 0.

        Returns:
            For each sequence float32, shape [tokens, features].

        Raises:
            TypeError: ids or types are not integers.
            ValueError: ids or types are out of range, or a sequence is longer than `max_tokens`.
        """
        given = joined_input(ids, types)
        return split_rows(self._core.run(*given), given.offsets)

    def logits(self, ids: Sequence[Any], types: Sequence[Any] | None = None) -> list[NDArray[np.float32]]:
        """Logits of a classifier.

        Args:
            ids: as for `run`.
            types: as for `run`.

        Returns:
            For each sequence float32, shape [labels]; [tokens, labels] where the model labels tokens.

        Raises:
            TypeError: as `run`.
            ValueError: as `run`, or the model is not a classifier.
        """
        self._check_task("classification", "token_classification")
        given = joined_input(ids, types)
        logits = self._core.encode(*given)
        return split_rows(logits, given.offsets) if self._labels_tokens else list(logits)

    def tokenize(
        self, texts: Iterable[Text], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> list[Tokens]:
        """Tokens of texts, as `encode`, `classify` and `rank` compute them with `outputs`.

        Args:
            texts: texts, or pairs of texts.
            prompt: prefix of every text that is not a pair; None for the prompt `prompt_name`.
            prompt_name: name of a prompt in the folder; None for its default prompt, if it has one and embeds.

        Returns:
            For each text its tokens, and whether it had more than the model takes.

        Raises:
            TypeError: a text is neither a str nor a pair of them.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: there is no tokenizer or no such prompt.
        """
        tokenizer = self._open_tokenizer()
        if prompt is None:
            prompt = tokenizer.prompt(prompt_name) if prompt_name or self.task == "embedding" else ""
        return tokenizer.tokens(check_texts(texts, pairs=True), prompt)

    def outputs(self, tokens: Sequence[Tokens]) -> NDArray[np.float32]:
        """Vectors or logits of tokenized texts, in one batch.

        Args:
            tokens: what `tokenize` returned.

        Returns:
            float32, shape [texts, features or labels]; [tokens of all texts, labels] where the model labels tokens.

        Raises:
            ValueError: the model has no pooling, or tokens are out of range.
        """
        self._check_pooling()
        return self._core.encode(*self._input_of(tokens))

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        batch_tokens: int | None = None,
        show_progress: bool = False,
    ) -> NDArray[np.float32]:
        """Embed texts, one vector for each, as `SentenceTransformer.encode` does.

        Args:
            texts: a text or several. Texts longer than the folder's limit or `max_tokens` are truncated, with a
                warning.
            prompt: prefix of every text; None for the prompt `prompt_name`.
            prompt_name: name of a prompt in the folder; None for its default prompt, if it has one.
            batch_tokens: largest number of tokens in a batch; None for 256 per thread.
            show_progress: show a bar on standard error.

        Returns:
            float32, shape [texts, features], in the order of the texts; [features] for one.

        Raises:
            TypeError: a text is not a str.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: no pooling is known, or there is no tokenizer or no such prompt.
        """
        self._check_task("embedding")
        self._check_pooling()
        given = check_texts([texts] if isinstance(texts, str) else texts)
        tokens = self.tokenize(given, prompt=prompt, prompt_name=prompt_name)
        vectors = self._outputs(tokens, batch_tokens, "encode", show_progress)
        return vectors[0] if isinstance(texts, str) else vectors

    def classify(
        self, texts: Iterable[Text], *, batch_tokens: int | None = None, show_progress: bool = False
    ) -> list[Classification]:
        """Classify texts, as transformers' text-classification pipeline does.

        Args:
            texts: texts, or pairs of texts.
            batch_tokens: as for `encode`.
            show_progress: likewise.

        Raises:
            TypeError: a text is neither a str nor a pair of them.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: the model does not classify texts, or there is no tokenizer.
        """
        self._check_task("classification")
        return self.labels.classified(self._text_logits(texts, batch_tokens, "classify", show_progress))

    def rank(
        self, query: str, documents: Iterable[str], *, batch_tokens: int | None = None, show_progress: bool = False
    ) -> NDArray[np.float32]:
        """Score documents for a query with a reranker, as `CrossEncoder.predict` scores the pairs.

        Args:
            query: first text of each pair.
            documents: second texts of the pairs.
            batch_tokens: as for `encode`.
            show_progress: likewise.

        Returns:
            float32, shape [documents], in their order; higher is better.

        Raises:
            TypeError: a text is no str.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: the model has more than one logit or is not a classifier, or there is no tokenizer.
        """
        self._check_task("classification")
        pairs = [(query, document) for document in check_texts(documents)]
        return self.labels.scores(self._text_logits(pairs, batch_tokens, "rank", show_progress))

    def classify_tokens(
        self,
        texts: Iterable[str],
        *,
        aggregation: str = "simple",
        batch_tokens: int | None = None,
        show_progress: bool = False,
    ) -> list[list[Span]]:
        """Find labeled spans in texts, as transformers' token-classification pipeline does; "O" marks other tokens.

        Args:
            texts: texts; no spans are found in truncated parts.
            aggregation: "none": each token is a span; "simple": adjacent tokens with one label; "first", "average",
                "max": adjacent words with one label, that of a word's first token, mean probabilities or most certain
                token.
            batch_tokens: as for `encode`.
            show_progress: likewise.

        Returns:
            For each text its spans, from left to right.

        Raises:
            TypeError: a text is no str.
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: the model does not label tokens, there is no tokenizer, or the aggregation is unknown.
        """
        self._check_task("token_classification")
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
        given = check_texts(texts)
        encodings = list(self._open_tokenizer().encodings(given))
        tokens = [tokens_of(encoding) for encoding in encodings]
        probabilities = self.labels.probabilities(self._outputs(tokens, batch_tokens, "classify", show_progress))
        parts = split_rows(probabilities, offsets_of([one.ids for one in tokens]))
        return [
            spans_of(text, encoding, part, self.labels.names, aggregation)
            for text, encoding, part in zip(given, encodings, parts, strict=True)
        ]

    def _text_logits(
        self, texts: Iterable[Text], batch_tokens: int | None, title: str, show_progress: bool
    ) -> NDArray[np.float32]:
        return self._outputs(self.tokenize(texts), batch_tokens, title, show_progress)

    def _outputs(
        self, tokens: Sequence[Tokens], batch_tokens: int | None, title: str, show_progress: bool
    ) -> NDArray[np.float32]:
        """Outputs of the core for texts, in their order: a row for each text, or for each of its tokens."""
        self._warn_of_truncated(tokens)
        if batch_tokens is None:
            batch_tokens = THREAD_TOKENS * runtime.num_threads()
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        offsets = offsets_of([one.ids for one in tokens]) if self._labels_tokens else np.arange(len(tokens) + 1)
        output = np.empty((offsets[-1], self._core.outputs), np.float32)
        with Progress[str](title=title, unit="texts", total=len(tokens), hidden=not show_progress) as progress:
            for batch in batches_by_tokens([one.ids.size for one in tokens], batch_tokens):
                rows = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in batch])
                output[rows] = self._core.encode(*self._input_of([tokens[i] for i in batch]))
                progress.update(len(batch))
        return output

    def _warn_of_truncated(self, tokens: Sequence[Tokens]) -> None:
        cut = sum(one.truncated for one in tokens)
        if cut and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{counted(cut, 'text')} of {len(tokens)} had more than {self._open_tokenizer().max_tokens} tokens and "
                "lost the rest; split long texts. This is said once",
                stacklevel=4,
            )

    def _input_of(self, tokens: Sequence[Tokens]) -> Input:
        types = [one.types for one in tokens] if self._core.types > 1 else None
        return joined_input([one.ids for one in tokens], types)

    def _check_pooling(self) -> None:
        if self._core.outputs == 0:
            names = ", ".join(map(repr, filter(None, POOLINGS)))
            raise ValueError(f"the model has no pooling; give pooling= (--pooling), one of {names}, to Encoder, or to "
                             "compile_model for a file")  # fmt: skip

    def _check_task(self, *tasks: str) -> None:
        if self.task not in tasks:
            raise ValueError(f"the model's task is {self.task}, not {' or '.join(tasks)}; {_USES[self.task]}")

    @cached_property
    def labels(self) -> Labels:
        """Labels of a classifier: their names, and probabilities or scores from rows of `outputs`.

        Raises:
            ValueError: the configuration is invalid.
        """
        folder = self._options_folder()
        if folder is None:
            return Labels({}, {}, self._core.outputs)
        return Labels(read_options(folder, CONFIG), read_options(folder, SENTENCE_CONFIG), self._core.outputs)

    def _options_folder(self) -> Path | None:
        """Folder of the transformers model, or of the tokenizer."""
        if self._tokenizer_file is not None:
            return self._tokenizer_file.parent
        return None if self._folder is None else read_modules(self._folder).encoder

    def _open_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            file = self._tokenizer_file
            if file is None:
                if self._folder is None:
                    raise ValueError(f"a compiled model has no tokenizer; give tokenizer= (--tokenizer) a {TOKENIZER}, "
                                     "or call run with token ids")  # fmt: skip
                file = read_modules(self._folder).encoder / TOKENIZER
            self._tokenizer = Tokenizer(file, self._folder or file.parent, self.max_tokens)
        return self._tokenizer


#: Task -> methods that support it, for error messages.
_USES = {
    "embedding": "encode gives vectors, run hidden states",
    "classification": "classify or rank gives labels; pooling= makes vectors of a folder",
    "token_classification": "classify_tokens gives spans; pooling= makes vectors of a folder",
}


def _check_none(**arguments: str | None) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"a compiled model has its own {given[0]}; compile it again with compile_model({given[0]}=)")


def _compiled(folder: Path, dtype: str, embeddings: str | None, pooling: str | None) -> runtime.CompiledEncoder:
    from sparsekit.engine.compiling import compile_model, is_decoder

    if is_decoder(folder):
        raise ValueError(f"{folder} is a language model; open it with Generator")
    return runtime.CompiledEncoder(compile_model(folder, dtype=dtype, embeddings=embeddings, pooling=pooling))


def _cached(
    folder: Path, dtype: str, embeddings: str | None, pooling: str | None, mmap: bool
) -> runtime.CompiledEncoder:
    from sparsekit.engine.compiled_cache import cached_encoder

    return cached_encoder(folder, dtype=dtype, embeddings=embeddings, pooling=pooling, mmap=mmap)
