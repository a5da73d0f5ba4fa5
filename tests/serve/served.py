"""Tiny models at random, and applications that serve them."""

import json
from pathlib import Path

from starlette.types import ASGIApp
from tiny_decoders import decoder, saved
from tiny_encoders import bert_with_tokenizer

from sparsekit.serve.http.application import application
from sparsekit.serve.limits import Limits
from sparsekit.serve.opening import ModelOptions, open_workers
from sparsekit.serve.routes.table import ROUTES
from sparsekit.serve.service import Service
from sparsekit.serve.telemetry.metrics import Metrics

TEMPLATE = "{% for message in messages %}w5 {{ message.content }} {% endfor %}"


def write_models(folder: Path) -> dict[str, Path]:
    """Model folders by name: an embedder, a classifier, a reranker, a language model."""
    embedder = bert_with_tokenizer(folder / "embedder")
    kinds = ("Transformer", ""), ("Pooling", "1_Pooling")
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (embedder / "modules.json").write_text(json.dumps(modules))
    (embedder / "1_Pooling").mkdir()
    (embedder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    for name, labels in (("classifier", 3), ("reranker", 1)):
        bert_with_tokenizer(folder / name, "BertForSequenceClassification", num_labels=labels)
    writer = saved(decoder("llama"), folder / "writer")
    (writer / "chat_template.jinja").write_text(TEMPLATE)
    return {name: folder / name for name in ("embedder", "classifier", "reranker", "writer")}


def service_of(*folders: Path, api_key: str | None = None, **limits) -> Service:
    """A server's models, not started."""
    bounds, metrics = Limits(**limits), Metrics()
    return Service(
        open_workers([str(one) for one in folders], ModelOptions(), bounds, metrics), bounds, metrics, api_key
    )


def application_of(service: Service) -> ASGIApp:
    """The application of a server."""
    return application(service, ROUTES)
