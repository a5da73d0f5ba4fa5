"""Open the models of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsekit.engine import Encoder, Generator
from sparsekit.engine.compiling import is_decoder
from sparsekit.io.hub_cache import local_folder
from sparsekit.serve.limits import Limits
from sparsekit.serve.telemetry.metrics import Metrics
from sparsekit.serve.work.encoding import EncoderWorker
from sparsekit.serve.work.generating import GeneratorWorker
from sparsekit.serve.work.worker import Worker


@dataclass(frozen=True)
class ModelOptions:
    """How models are opened: arguments of `Encoder` and `Generator`.

    Args:
        dtype: of dense layers.
        embeddings: of word embeddings.
        pooling: of encoders.
        cache: keep compiled encoders in the user's cache.
        context: limit of tokens of language models.
        cache_dtype: of kept keys and values of language models.
    """

    dtype: str | None = None
    embeddings: str | None = None
    pooling: str | None = None
    cache: bool = False
    context: int | None = None
    cache_dtype: str = "float32"


def open_workers(
    folders: Sequence[str], options: ModelOptions, limits: Limits, metrics: Metrics
) -> Mapping[str, Worker[Any]]:
    """Open models.

    Args:
        folders: model folders, or names in the local hub cache. A model has the name of its folder.
        options: how to open them.
        limits: limits of the server.
        metrics: metrics of the server.

    Returns:
        Workers by the names of their models.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: two models have one name, the engine does not run a model, or it cannot be served.
    """
    workers: dict[str, Worker[Any]] = {}
    for given in folders:
        name = Path(given).resolve().name if Path(given).exists() else given
        if name in workers:
            raise ValueError(f"two models are called {name}; rename a folder")
        workers[name] = _worker(name, local_folder(given), options, limits, metrics)
    return workers


def _worker(name: str, folder: Path, options: ModelOptions, limits: Limits, metrics: Metrics) -> Worker[Any]:
    types: dict[str, Any] = {"dtype": options.dtype, "embeddings": options.embeddings}
    if is_decoder(folder):
        generator = Generator(folder, **types, context=options.context, cache_dtype=options.cache_dtype)
        generator.prompts.tokenize(name)  # a folder without tokenizer is refused before there is a server
        return GeneratorWorker(name, generator, limits, metrics)
    encoder = Encoder(folder, **types, pooling=options.pooling, cache=options.cache)
    if encoder.task == "token_classification":
        raise ValueError(f"{name} labels tokens, which no route does; run it with sparsekit classify")
    encoder.outputs(encoder.tokenize([name]))  # likewise, or without pooling
    return EncoderWorker(name, encoder, limits, metrics)
