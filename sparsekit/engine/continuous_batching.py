"""Continuous batching: decode several texts together, token by token; texts join and leave the batch between steps."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.engine.batches import joined_input
from sparsekit.engine.prefix_caches import Held, PrefixCaches, shared_tokens
from sparsekit.engine.sampling import Sampling
from sparsekit.engine.text_stream import TextStream

#: Shortest shared prefix for which a text waits one step to copy another text's cache: recomputing fewer tokens is
#: cheaper than an extra step.
_LEAST_SHARED = 16


@dataclass
class Completion:
    """The continuation of a prompt.

    `finish` is the reason it ended: "end" at an end token, "stop" before a stop string, "length" at `max_new_tokens` or
    a full context, "canceled"; "" while it runs.
    """

    prompt_tokens: int
    reused_tokens: int = 0  # tokens of the prompt that a cache already held
    text: str = ""
    tokens: list[int] = field(default_factory=list)  # including the end token
    log_probabilities: list[float] = field(default_factory=list)  # of each token, before penalties and filters
    finish: str = ""
    first_token_seconds: float = 0.0  # from the start of the prefill
    seconds: float = 0.0  # from there to the last token


class RunningText:
    """A text that is being decoded.

    Args:
        prompt: token ids of the prompt.
        most: limit of prompt and new tokens.
        sampling: how tokens are chosen.
        stream: detokenizes.
    """

    def __init__(self, prompt: Sequence[int], most: int, sampling: Sampling, stream: TextStream) -> None:
        self.ids = list(prompt)
        self.completion = Completion(prompt_tokens=len(prompt))
        self._most = most
        self._settings = {name: value for name, value in asdict(sampling).items() if name != "seed"}
        self._seed = sampling.seed_of_text()
        self._stream = stream
        self._start = 0.0

    def start(self, reused_tokens: int) -> None:
        """Start the clock; a cache already holds the first `reused_tokens`."""
        self.completion.reused_tokens = reused_tokens
        self._start = time.perf_counter()

    def choose(self, logits: NDArray[np.float32], end_tokens: frozenset[int]) -> str:
        """Sample the next token; return the text that can be emitted."""
        done = self.completion
        seen = np.array(self.ids, np.int32)
        token, log_probability = runtime.sample(logits, seen, **self._settings, seed=self._seed, step=len(done.tokens))
        done.seconds = time.perf_counter() - self._start
        done.first_token_seconds = done.first_token_seconds or done.seconds
        self.ids.append(token)
        done.tokens.append(token)
        done.log_probabilities.append(log_probability)
        if token in end_tokens:
            return self.finish("end")
        piece = self._stream.push(token)
        done.text += piece
        if self._stream.stopped:
            done.finish = "stop"
        elif len(self.ids) >= self._most:
            piece += self.finish("length")
        return piece

    def finish(self, reason: str) -> str:
        """End the text; return the text that was held back."""
        rest = self._stream.finish()
        self.completion.text += rest
        self.completion.finish = reason
        return rest


class Batch:
    """Decodes texts together.

    Args:
        decoder: the model.
        caches: pool of key-value caches.
        end_tokens: ids of end tokens.
        most: largest batch; further texts wait.
    """

    def __init__(
        self, decoder: runtime.CompiledDecoder, caches: PrefixCaches, end_tokens: frozenset[int], most: int
    ) -> None:
        self._decoder = decoder
        self._caches = caches
        self._end_tokens = end_tokens
        self._most = most
        self._running: list[tuple[RunningText, runtime.KeyValueCache]] = []

    def run(self, texts: Sequence[RunningText]) -> Generator[tuple[RunningText, str], None, None]:
        """Decode texts to their ends.

        Yields:
            For each token, its text and the piece that can be emitted, which may be empty.
        """
        waiting = list(reversed(texts))
        try:
            while waiting or self._running:
                self._fill(waiting)
                yield from self._step()
        finally:
            for text, cache in self._running:
                self._caches.give_back(text.ids, cache)

    def _fill(self, waiting: list[RunningText]) -> None:
        """Admit waiting texts, the last one first, while the batch has room.

        A text that shares a prefix with one whose prefill runs in this step waits for the next step and copies its
        cache.
        """
        kept = []
        while waiting and len(self._running) < self._most:
            text = waiting.pop()
            if self._soon(text) - self._caches.held(text.ids, self._held()) >= _LEAST_SHARED:
                kept.append(text)
            else:
                self._join(text)
        waiting.extend(reversed(kept))

    def _soon(self, text: RunningText) -> int:
        """How many tokens of a text's prefix the other texts' caches hold after this step."""
        return max((shared_tokens(text.ids, other.ids) for other, _ in self._running), default=0)

    def _held(self) -> list[Held]:
        return [(other.ids, cache) for other, cache in self._running]

    def _join(self, text: RunningText) -> None:
        cache = self._caches.take(text.ids, self._held())
        text.start(cache.tokens)
        self._running.append((text, cache))

    def _step(self) -> Iterator[tuple[RunningText, str]]:
        """Decode one token of each text."""
        running = list(self._running)
        given = joined_input([text.ids[cache.tokens :] for text, cache in running], None)
        logits = self._decoder.run(given.ids, given.offsets, [cache for _, cache in running])
        for (text, cache), row in zip(running, logits, strict=True):
            piece = text.choose(row, self._end_tokens)
            if text.completion.finish:
                self._running.remove((text, cache))
                self._caches.give_back(text.ids, cache)
            yield text, piece
