"""Prompts of a language model: tokenizer, chat template and generation settings, in the files beside its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsekit.engine.chat_template import ChatTemplate, Message, text_of_token
from sparsekit.engine.sampling import Sampling, end_tokens_of, sampling_of
from sparsekit.engine.tokenizing import TOKENIZER, TOKENIZER_OPTIONS, open_tokenizer, read_options
from sparsekit.io.file_names import CONFIG, GENERATION_CONFIG

if TYPE_CHECKING:
    import tokenizers


class Prompts:
    """Turns texts and chats into token ids. Threads may share it; files are read on first use.

    Args:
        tokenizer_file: path of tokenizer.json; None if the model has none.
    """

    def __init__(self, tokenizer_file: Path | None) -> None:
        self._tokenizer_file = tokenizer_file

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a text, with special tokens.

        Raises:
            ModuleNotFoundError: tokenizers is not installed.
            ValueError: there is no tokenizer.
        """
        ids: list[int] = self.tokenizer.encode(prompt).ids
        return ids

    def tokenize_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, up to where the answer begins.

        Raises:
            ModuleNotFoundError: jinja2 or tokenizers is not installed.
            ValueError: there is no chat template, or it refuses the messages.
        """
        prompt = self.chat_template.prompt(messages)
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids  # the template has them
        return ids

    def sampling(self, overrides: Mapping[str, Any]) -> Sampling:
        """The folder's settings with a caller's overrides: see `sampling_of`."""
        return sampling_of(self._generation_config, overrides)

    @cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The tokenizer, without the truncation and padding that its file may configure."""
        if self._tokenizer_file is None:
            raise ValueError(f"a compiled model has no tokenizer; give tokenizer= (--tokenizer) a {TOKENIZER}")
        tokenizer = open_tokenizer(self._tokenizer_file)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The folder's chat template."""
        if self._tokenizer_file is None:
            raise ValueError(
                "a compiled model has no chat template; give Generator(..., tokenizer=), which has it beside"
            )
        return ChatTemplate(self._tokenizer_file.parent)

    @cached_property
    def end_of_text(self) -> int | None:
        """The end-of-text token in the tokenizer's options."""
        if self._tokenizer_file is None:
            return None
        options = read_options(self._tokenizer_file.parent, TOKENIZER_OPTIONS)
        found: int | None = self.tokenizer.token_to_id(text_of_token(options.get("eos_token")))
        return found

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a text."""
        return end_tokens_of(self._generation_config)

    @cached_property
    def _generation_config(self) -> dict[str, Any]:
        """Content of generation_config.json, or of config.json in older folders."""
        if self._tokenizer_file is None:
            return {}
        folder = self._tokenizer_file.parent
        return dict(read_options(folder, GENERATION_CONFIG if (folder / GENERATION_CONFIG).exists() else CONFIG))
