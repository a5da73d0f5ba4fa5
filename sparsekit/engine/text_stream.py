"""Tokens to text while they are generated: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

#: What decoders write for bytes that are no character, or not yet a whole one.
_NO_CHARACTER = "\ufffd"


class TextStream:
    """The text of tokens that come one by one.

    Pieces joined are what the tokenizer decodes of all tokens at once without special ones, up to a stop string. Only
    where a tokenizer falls back to bytes, and a run of them turns out to be no UTF-8 after whole characters of it were
    given, does `decode` replace these too.

    Args:
        tokenizer: what decodes.
        stop: strings, or one, before which the text ends: of several, the one that is whole first, of these the
            longest.

    What is pushed once it has stopped is ignored.

    Raises:
        TypeError: a stop string is none.
        ValueError: one is empty.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, stop: str | Sequence[str] = ()) -> None:
        self._decoder = _Decoder(tokenizer)
        self._cutter = _Cutter(_stop_strings(stop))

    @property
    def stopped(self) -> bool:
        """Whether the text has ended before a stop string."""
        return self._cutter.stopped

    def push(self, token: int) -> str:
        """The text that is certain with one more token, after that given before; often none."""
        return self._cutter.push(self._decoder.push(token))

    def finish(self) -> str:
        """The rest of the text: no token follows."""
        return self._cutter.push(self._decoder.finish()) + self._cutter.finish()


class _Decoder:
    """Decodes new tokens behind those of the piece before, on which a space at their start depends.

    tokenizers' own DecodeStream does not give the rest of a text, and raises where bytes turn out to be no UTF-8.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []  # tokens of the piece before
        self._before_text = ""
        self._new: list[int] = []  # tokens without a piece so far

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
    """Cuts a text before a stop string, and holds back what may be the start of one."""

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
        """How many characters at the end of the text may begin a stop string."""
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
