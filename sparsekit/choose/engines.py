"""Time dense engines and compressed models on texts of the same length, interleaved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sparsekit.bench.affinity import limited_to, pause_for
from sparsekit.bench.models.benchmark import EngineRun, engine_runs
from sparsekit.bench.models.peers import DENSE_ENGINES, MODEL_PEERS, compiled_call
from sparsekit.bench.models.problem import Calibration, HiddenState, ModelProblem, random_ids
from sparsekit.progress import tell
from sparsekit.timing.comparing import Timing, compare

T = TypeVar("T")

#: Texts in a batch.
BATCH = 16
#: Seconds for each engine and model, of one text and of a batch.
_SECONDS = 1.0


@dataclass(frozen=True)
class Speed:
    """What a model takes in an engine.

    Attributes:
        one_text_ms: median milliseconds of one text.
        texts_per_second: in batches of `BATCH`.
        noisy: whether other programs disturbed a measurement.
    """

    one_text_ms: float
    texts_per_second: float
    noisy: bool

    @classmethod
    def of(cls, one: Timing, batch: Timing) -> Speed:
        """Of the timings of one text and of a batch."""
        return cls(1e3 * one.median, BATCH / batch.median, one.noisy or batch.noisy)


@dataclass(frozen=True)
class Race:
    """Everything that is timed together.

    Attributes:
        dense: the dense model, as `AutoModel` has it.
        tokens: of each text.
        threads: of every engine.
        calibration: token ids of texts, for engines that quantize statically.
        engines: dense ones, of `DENSE_ENGINES`.
    """

    dense: HiddenState
    tokens: int
    threads: int
    calibration: Calibration
    engines: Sequence[str]

    def run(self, models: Mapping[str, NDArray[np.uint8]]) -> dict[str, Speed]:
        """Time the dense engines, and compiled models in ours.

        Args:
            models: by name, as `compile_model` gives them.

        Returns:
            Engine or model -> its speed, without engines that do not run the model or whose outputs are wrong.
        """
        with limited_to(self.threads):
            one, batch = (self._timed(models, texts) for texts in (1, BATCH))
        return {name: Speed.of(one[name], batch[name]) for name in one if name in batch}

    def _timed(self, models: Mapping[str, NDArray[np.uint8]], texts: int) -> dict[str, Timing]:
        problem = self._problem(texts, self.tokens)
        calls = {run.engine: run.call for name in self.engines for run in self.runs(name, texts, self.tokens)}
        calls |= {name: compiled_call(compiled, problem) for name, compiled in models.items()}
        return compare(calls, seconds=_SECONDS * len(calls), pause=pause_for(self.threads))

    def runs(self, engine: str, texts: int, tokens: int) -> list[EngineRun]:
        """An engine, or what replaces it where its outputs are wrong; none where it does not run the model.

        Args:
            engine: of `MODEL_PEERS`.
            texts: in a call.
            tokens: of each text.
        """
        problem = self._problem(texts, tokens)
        none: list[EngineRun] = []
        found = attempted(engine, lambda: engine_runs(engine, problem, 0.0, self.engines), none)
        return [run for run in found if not run.wrong]

    def _problem(self, texts: int, tokens: int) -> ModelProblem:
        model: Any = self.dense.model
        vocabulary = model.get_input_embeddings().num_embeddings
        ids = random_ids(texts, tokens, vocabulary, model.config.pad_token_id)
        return ModelProblem(self.dense, ids, torch.ones_like(ids), self.threads, self.calibration)


def attempted(engine: str, action: Callable[[], T], otherwise: T) -> T:
    """What a call gives that runs an engine; `otherwise`, and a line that says so, where the engine fails."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - exporters and engines raise many types on models they do not run
        tell(f"left out: {engine} does not run this model ({type(error).__name__}: {str(error)[:200]})")
        return otherwise


def installed_engines() -> list[str]:
    """The dense engines that are installed."""
    return [name for name in DENSE_ENGINES if not MODEL_PEERS[name].missing]
