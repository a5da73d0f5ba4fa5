"""Texts to token ids: a folder's tokenizer with its options, as sentence-transformers and transformers use it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsekit.extras import how_to_install
from sparsekit.io.file_names import SENTENCE_OPTIONS
from sparsekit.io.untrusted import read_object, regular_file
from sparsekit.wording import counted

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"
_TOKENIZER_OPTIONS = "tokenizer_config.json"
_PROMPTS = "config_sentence_transformers.json"
#: Texts that are tokenized at a time: the tokenizer's own objects take many times what ids do.
_AT_A_TIME = 1024


class Tokenizer:
    """A folder's tokenizer: truncates, does not pad.

    Args:
        file: tokenizer.json; options lie in files beside it.
        folder: what config_sentence_transformers.json lies in.
        max_tokens: most tokens of a text, if the folder does not say fewer.

    Raises:
        ModuleNotFoundError: tokenizers is not installed.
        ValueError: a file is missing or damaged.
    """

    def __init__(self, file: Path, folder: Path, max_tokens: int) -> None:
        sentence = _options(file.parent, SENTENCE_OPTIONS)
        options = _options(file.parent, _TOKENIZER_OPTIONS)
        self._tokenizer = _open(file)
        self._lower = sentence.get("do_lower_case") is True
        self._prompt = _default_prompt(_options(folder, _PROMPTS))
        self.max_tokens = min(_limit(sentence, "max_seq_length"), _limit(options, "model_max_length"), max_tokens)
        direction = "left" if options.get("truncation_side") == "left" else "right"
        self._tokenizer.enable_truncation(self.max_tokens, direction=direction)
        self._tokenizer.no_padding()
        self._has_warned = False

    def ids(self, texts: Iterable[str]) -> list[NDArray[np.int32]]:
        """Token ids of every text, int32, shape [tokens], with special tokens."""
        source = iter(texts)
        found: list[NDArray[np.int32]] = []
        while some := list(islice(source, _AT_A_TIME)):
            found += self._encoded(some)
        return found

    def _encoded(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        prepared = [self._prompt + (text.lower() if self._lower else text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(prepared)
        cut = sum(bool(encoding.overflowing) for encoding in encodings)
        if cut and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{counted(cut, 'text')} of {len(texts)} had more than {self.max_tokens} tokens and lost the rest; "
                "split long texts. This is said once",
                stacklevel=2,
            )
        return [np.asarray(encoding.ids, np.int32) for encoding in encodings]


def _options(folder: Path, name: str) -> Mapping[str, Any]:
    """The options in a file; none where it is not there."""
    return read_object(regular_file(folder, name)) if (folder / name).exists() else {}


def _limit(options: Mapping[str, Any], key: str) -> int:
    """The most tokens that an option allows; where there is none, transformers writes 10^30."""
    value = options.get(key)
    return value if type(value) is int and value >= 1 else sys.maxsize


def _default_prompt(options: Mapping[str, Any]) -> str:
    """What precedes every text."""
    name, prompts = options.get("default_prompt_name"), options.get("prompts")
    prompt = prompts.get(name) if isinstance(name, str) and isinstance(prompts, dict) else None
    return prompt if isinstance(prompt, str) else ""


def _open(file: Path) -> tokenizers.Tokenizer:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"texts need tokenizers: {how_to_install('engine')}", name=error.name) from error
    if not file.exists():
        raise ValueError(f"there is no {file}; write it with transformers, AutoTokenizer.from_pretrained(...)"
                         ".save_pretrained(...), or give Encoder(..., tokenizer=)")  # fmt: skip
    text = regular_file(file.parent, file.name).read_text(encoding="utf-8")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"{file} is no tokenizer that tokenizers {tokenizers.__version__} reads: {error}") from error
