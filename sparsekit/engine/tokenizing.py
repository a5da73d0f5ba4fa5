"""Tokenize texts with a folder's tokenizer and its options, as sentence-transformers and transformers do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from sparsekit.extras import how_to_install
from sparsekit.io.file_names import SENTENCE_CONFIG, SENTENCE_OPTIONS
from sparsekit.io.untrusted import read_object, regular_file

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"
TOKENIZER_OPTIONS = "tokenizer_config.json"
#: Texts to tokenize at a time: the tokenizer's objects take many times the memory of ids.
_AT_A_TIME = 1024


#: A text, or a pair of texts.
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Tokens:
    """Tokens of a text, special tokens included."""

    ids: NDArray[np.int32]  # [tokens]
    types: NDArray[np.int32]  # [tokens]
    truncated: bool = False  # the text had more


class Tokenizer:
    """A folder's tokenizer, with truncation and without padding.

    Args:
        file: path of tokenizer.json, with the option files beside it.
        folder: folder of config_sentence_transformers.json.
        max_tokens: limit of tokens per text, unless the folder has a lower one.

    Raises:
        ModuleNotFoundError: tokenizers is not installed.
        ValueError: a file is missing or damaged.
    """

    def __init__(self, file: Path, folder: Path, max_tokens: int) -> None:
        sentence = read_options(file.parent, SENTENCE_OPTIONS)
        options = read_options(file.parent, TOKENIZER_OPTIONS)
        self._tokenizer = open_tokenizer(file)
        self._lower = sentence.get("do_lower_case") is True
        self._prompts = read_options(folder, SENTENCE_CONFIG)
        self.max_tokens = min(_limit(sentence, "max_seq_length"), _limit(options, "model_max_length"), max_tokens)
        direction = "left" if options.get("truncation_side") == "left" else "right"
        self._tokenizer.enable_truncation(self.max_tokens, direction=direction)
        self._tokenizer.no_padding()

    def prompt(self, name: str | None = None) -> str:
        """A prompt of the folder by name; None for its default prompt, if it has one.

        Raises:
            ValueError: the folder has no such prompt.
        """
        prompts = self._prompts.get("prompts")
        prompts = prompts if isinstance(prompts, dict) else {}
        found = prompts.get(self._prompts.get("default_prompt_name") if name is None else name)
        if isinstance(found, str):
            return found
        if name is None:
            return ""
        raise ValueError(f"there is no prompt {name!r}, only {', '.join(map(repr, prompts)) or 'none'}; give prompt=")

    def tokens(self, texts: Iterable[Text], prompt: str = "") -> list[Tokens]:
        """Tokenize texts.

        Args:
            texts: texts and pairs.
            prompt: prefix of every text that is not a pair.
        """
        found = self._encodings(texts, prompt, self._tokenizer.encode_batch_fast)
        return [tokens_of(encoding) for encoding in found]

    def encodings(self, texts: Iterable[Text]) -> Iterator[tokenizers.Encoding]:
        """Encoding of every text: tokens with their offsets."""
        return self._encodings(texts, "", self._tokenizer.encode_batch)

    def _encodings(
        self, texts: Iterable[Text], prompt: str, encode: Callable[[list[Text]], Sequence[tokenizers.Encoding]]
    ) -> Iterator[tokenizers.Encoding]:
        source = iter(texts)
        while some := list(islice(source, _AT_A_TIME)):
            yield from encode([self._prepared(text, prompt) for text in some])

    def _prepared(self, text: Text, prompt: str) -> Text:
        if isinstance(text, str):
            return prompt + (text.lower() if self._lower else text)
        first, second = text
        return (first.lower(), second.lower()) if self._lower else (first, second)


def tokens_of(encoding: tokenizers.Encoding) -> Tokens:
    """Tokens of an encoding."""
    ids, types = np.asarray(encoding.ids, np.int32), np.asarray(encoding.type_ids, np.int32)
    return Tokens(ids, types, bool(encoding.overflowing))


@overload
def check_texts(texts: Iterable[str]) -> list[str]: ...


@overload
def check_texts(texts: Iterable[Text], *, pairs: Literal[True]) -> list[Text]: ...


def check_texts(texts: Iterable[Any], *, pairs: bool = False) -> list[Any]:
    """Check texts, and pairs of texts where these are allowed.

    Raises:
        TypeError: an item has another type, or `texts` is a single str.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of str, got str; put it into a list")
    given = list(texts)
    for text in given:
        if not isinstance(text, str) and not (pairs and _is_pair(text)):
            kinds = "str or pairs of str" if pairs else "str"
            raise TypeError(f"texts must be {kinds}, got {type(text).__name__}")
    return given


def _is_pair(text: Any) -> bool:
    return isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)


def read_options(folder: Path, name: str) -> Mapping[str, Any]:
    """Content of an options file; empty if it does not exist."""
    return read_object(regular_file(folder, name)) if (folder / name).exists() else {}


def _limit(options: Mapping[str, Any], key: str) -> int:
    """The limit of tokens in an option, if any: for none, transformers writes 10^30."""
    value = options.get(key)
    return value if type(value) is int and value >= 1 else sys.maxsize


def open_tokenizer(file: Path) -> tokenizers.Tokenizer:
    """Open a tokenizer.json.

    Raises:
        ModuleNotFoundError: tokenizers is not installed.
        ValueError: the file is missing or damaged.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"texts need tokenizers: {how_to_install('engine')}", name=error.name) from error
    if not file.exists():
        raise ValueError(f"there is no {file}; write it with transformers, AutoTokenizer.from_pretrained(...)"
                         ".save_pretrained(...), or give tokenizer=")  # fmt: skip
    text = regular_file(file.parent, file.name).read_text(encoding="utf-8")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{file} is no tokenizer that tokenizers {tokenizers.__version__} reads: {error}") from error
