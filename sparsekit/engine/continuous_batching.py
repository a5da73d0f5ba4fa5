"""Continuous batching: decode several texts together, token by token; texts join and leave the batch between steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
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
    a full context, "canceled", "error" where its logits were invalid; "" while it runs.
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
        self.error: FloatingPointError | None = None  # why no token could be chosen
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
        """Sample the next token; return the text that can be emitted. Invalid logits end the text with `error`."""
        try:
            token = self._sample(logits)
        except FloatingPointError as error:
            self.error = error
            return self.finish("error")
        if token in end_tokens:
            return self.finish("end")
        piece = self._stream.push(token)
        self.completion.text += piece
        if self._stream.stopped:
            self.completion.finish = "stop"
        elif len(self.ids) >= self._most:
            piece += self.finish("length")
        return piece

    def _sample(self, logits: NDArray[np.float32]) -> int:
        done = self.completion
        seen = np.array(self.ids, np.int32)
        token, log_probability = runtime.sample(logits, seen, **self._settings, seed=self._seed, step=len(done.tokens))
        done.seconds = time.perf_counter() - self._start
        done.first_token_seconds = done.first_token_seconds or done.seconds
        self.ids.append(token)
        done.tokens.append(token)
        done.log_probabilities.append(log_probability)
        return token

    def finish(self, reason: str) -> str:
        """End the text; return the text that was held back."""
        rest = self._stream.finish()
        self.completion.text += rest
        self.completion.finish = reason
        return rest


class Batch:
    """Decodes texts together, which join and leave between steps.

    Args:
        decoder: the model.
        caches: pool of key-value caches.
        end_tokens: ids of end tokens.
        most: largest number of texts that run at a time; further ones wait.
    """

    def __init__(
        self, decoder: runtime.CompiledDecoder, caches: PrefixCaches, end_tokens: frozenset[int], most: int
    ) -> None:
        self._decoder = decoder
        self._caches = caches
        self._end_tokens = end_tokens
        self._most = most
        self._waiting: deque[RunningText] = deque()
        self._running: list[tuple[RunningText, runtime.KeyValueCache]] = []

    def __len__(self) -> int:
        """Number of texts that run or wait."""
        return len(self._waiting) + len(self._running)

    def add(self, text: RunningText) -> None:
        """Have a text join as soon as there is room."""
        self._waiting.append(text)

    def drop(self, text: RunningText) -> None:
        """Take a text out before its end, if it is there; its cache is kept for texts with the same prefix."""
        if text in self._waiting:
            self._waiting.remove(text)
        for other, cache in [pair for pair in self._running if pair[0] is text]:
            self._leave(other, cache)

    def step(self) -> list[tuple[RunningText, str]]:
        """Decode one token of each running text.

        Returns:
            For each of them, the piece of text that can be emitted, which may be empty.
        """
        self._admit()
        running = list(self._running)
        given = joined_input([text.ids[cache.tokens :] for text, cache in running], None)
        logits = self._decoder.run(given.ids, given.offsets, [cache for _, cache in running])
        return [(text, self._choose(text, cache, row)) for (text, cache), row in zip(running, logits, strict=True)]

    def run(self, texts: Sequence[RunningText]) -> Generator[tuple[RunningText, str], None, None]:
        """Decode texts to their ends.

        Yields:
            For each token, its text and the piece that can be emitted, which may be empty.

        Raises:
            FloatingPointError: logits are NaN.
        """
        self._waiting.extend(texts)
        try:
            while len(self):
                for text, piece in self.step():
                    if text.error is not None:
                        raise text.error
                    yield text, piece
        finally:
            for text in texts:
                self.drop(text)

    def _choose(self, text: RunningText, cache: runtime.KeyValueCache, logits: NDArray[np.float32]) -> str:
        piece = text.choose(logits, self._end_tokens)
        if text.completion.finish:
            self._leave(text, cache)
        return piece

    def _leave(self, text: RunningText, cache: runtime.KeyValueCache) -> None:
        self._running.remove((text, cache))
        self._caches.give_back(text.ids, cache)

    def _admit(self) -> None:
        """Admit waiting texts while there is room.

        A text that shares a prefix with one whose prefill runs in this step waits for the next step and copies its
        cache.
        """
        kept = []
        while self._waiting and len(self._running) < self._most:
            text = self._waiting.popleft()
            if self._soon(text) - self._caches.held(text.ids, self._held()) >= _LEAST_SHARED:
                kept.append(text)
            else:
                self._join(text)
        self._waiting.extendleft(reversed(kept))

    def _soon(self, text: RunningText) -> int:
        """How many tokens of a text's prefix the other texts' caches hold after this step."""
        return max((shared_tokens(text.ids, other.ids) for other, _ in self._running), default=0)

    def _held(self) -> list[Held]:
        return [(other.ids, cache) for other, cache in self._running]

    def _join(self, text: RunningText) -> None:
        cache = self._caches.take(text.ids, self._held())
        text.start(cache.tokens)
        self._running.append((text, cache))
