"""Time whole compiled models on random ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsekit import runtime
from sparsekit.choose.times.calls import Call
from sparsekit.engine.batches import Input, offsets_of
from sparsekit.timing.comparing import Timing, clock_for, compare

#: Seconds for each model, and at most while the machine is too noisy to tell.
_SECONDS, _AT_MOST = 0.5, 3.0


def measure_whole(
    models: Mapping[str, NDArray[np.uint8]],
    call: Call,
    *,
    decodes: bool,
    seconds: float = _SECONDS,
    at_most: float = _AT_MOST,
) -> dict[str, Timing]:
    """Time a call of compiled models, interleaved, each with what its last call left in the caches.

    Args:
        models: by name, of one kind.
        call: of each.
        decodes: whether they are language models.
        seconds: for each of them.
        at_most: the same while the machine is too noisy to tell.

    Raises:
        ValueError: a model has no positions for the call; an encoder is to go on behind tokens.
    """
    make: Callable[[NDArray[np.uint8], Call], Callable[[], Any]] = DecoderRun if decodes else encoder_run
    runs = {name: make(compiled, call) for name, compiled in models.items()}
    warm, clock = dict.fromkeys(runs, 1), clock_for(runtime.num_threads())
    return compare(runs, seconds=seconds * len(runs), at_most=at_most * len(runs), warm=warm, clock=clock)


def encoder_run(compiled: NDArray[np.uint8], call: Call) -> Callable[[], NDArray[np.float32]]:
    """A call of an encoder: its vectors or logits, or hidden states where it gives nothing else.

    Raises:
        ValueError: texts are to go on behind others.
    """
    if call.past:
        raise ValueError(f"encoders keep no tokens of earlier calls, got {call}")
    core = runtime.CompiledEncoder(compiled)
    given = _random_texts(call.texts, call.tokens, core.vocabulary)
    return partial(core.encode if core.outputs else core.run, given.ids, given.offsets)


class DecoderRun:
    """A call of a language model: logits of each text's last token.

    Args:
        compiled: the model.
        call: of it, the same in each of these calls: caches hold `call.past` tokens before.

    Raises:
        ValueError: the model has not as many positions.
    """

    def __init__(self, compiled: NDArray[np.uint8], call: Call) -> None:
        self._core = runtime.CompiledDecoder(compiled)
        self._past = call.past
        self._caches = [self._core.make_cache(call.past + call.tokens) for _ in range(call.texts)]
        self._given = _random_texts(call.texts, call.tokens, self._core.vocabulary)
        if call.past:
            before = _random_texts(call.texts, call.past, self._core.vocabulary)
            self._core.run(before.ids, before.offsets, self._caches)

    def __call__(self) -> NDArray[np.float32]:
        """Float32, shape [texts, vocabulary]."""
        for cache in self._caches:
            cache.truncate(self._past)
        return self._core.run(self._given.ids, self._given.offsets, self._caches)


def _random_texts(texts: int, tokens: int, vocabulary: int) -> Input:
    ids = np.random.default_rng(0).integers(0, vocabulary, (texts, tokens), np.int32)
    return Input(ids.reshape(-1), offsets_of(list(ids)), None)
