"""Incremental detokenization: emit whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

#: Replacement character for bytes that are not, or not yet, a whole character.
_NO_CHARACTER = "\ufffd"


class TextStream:
    """Detokenizes a stream of tokens.

    The concatenated pieces equal the decoding of all tokens at once without special tokens, up to a stop string. The
    only exception: with byte fallback, if a run of bytes turns out to be invalid UTF-8 after some of its characters
    were emitted, `decode` would have replaced these too.

    Args:
        tokenizer: the tokenizer.
        stop: a string or several before which the text ends; the one completed first counts, and of several completed
            at once the longest.

    Tokens after the stop are ignored.

    Raises:
        TypeError: a stop string is not a str.
        ValueError: a stop string is empty.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, stop: str | Sequence[str] = ()) -> None:
        self._decoder = _Decoder(tokenizer)
        self._cutter = _Cutter(_stop_strings(stop))

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._cutter.stopped

    def push(self, token: int) -> str:
        """Add a token; return the text that can be emitted now, often none."""
        return self._cutter.push(self._decoder.push(token))

    def finish(self) -> str:
        """Return the text that was held back; no token follows."""
        return self._cutter.push(self._decoder.finish()) + self._cutter.finish()


class _Decoder:
    """Decodes new tokens in the context of the previous piece, which decides about a leading space.

    tokenizers' own DecodeStream does not return the text held back at the end, and raises on invalid UTF-8.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # tokens of the previous piece
        self._before_text = ""
        self._new: list[int] = []  # tokens not yet emitted

    def push(self, token: int) -> str:
        self._new.append(token)
        text = self._decode(self._before + self._new)
        if len(text) <= len(self._before_text) or text.endswith(_NO_CHARACTER):
            return ""
        piece = text[len(self._before_text) :]
        self._before, self._new = self._new, []
        self._before_text = self._decode(self._before)
        return piece

    def finish(self) -> str:
        return self._decode(self._before + self._new)[len(self._before_text) :]

    def _decode(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)


class _Cutter:
    """Cuts a text before a stop string, and holds back a possible start of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        found = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        self.stopped = bool(found)
        certain = min(found)[1] if found else len(text) - self._start_of_stop(text)
        self._held = "" if found else text[certain:]
        return text[:certain]

    def finish(self) -> str:
        held, self._held = self._held, ""
        return held

    def _start_of_stop(self, text: str) -> int:
        """Number of characters at the end of the text that may begin a stop string."""
        lengths = (length for stop in self._stop for length in range(1, len(stop)) if text.endswith(stop[:length]))
        return max(lengths, default=0)


def _stop_strings(stop: str | Sequence[str]) -> list[str]:
    strings = [stop] if isinstance(stop, str) else list(stop)
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"stop must be str or a list of str, got {type(string).__name__} in it")
        if not string:
            raise ValueError("stop must have no empty string, before which every text ends; leave it out")
    return strings
