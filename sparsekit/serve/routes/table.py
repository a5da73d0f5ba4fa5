"""All routes."""

from __future__ import annotations

from sparsekit.serve.http.endpoint import Route
from sparsekit.serve.pages.pages import page_routes
from sparsekit.serve.protocol import requests, responses
from sparsekit.serve.routes.chat import chat
from sparsekit.serve.routes.classification import classify, rerank
from sparsekit.serve.routes.completions import complete
from sparsekit.serve.routes.embedding import embed
from sparsekit.serve.routes.health import live, metrics, ready
from sparsekit.serve.routes.models import list_models, show_model

_INTERFACE = (
    Route("/v1/embeddings", "Embed texts.", embed, requests.EmbeddingRequest, responses.EmbeddingResponse),
    Route("/v1/completions", "Continue prompts.", complete, requests.CompletionRequest, responses.CompletionResponse),
    Route("/v1/chat/completions", "Answer a chat.", chat, requests.ChatRequest, responses.ChatResponse),
    Route("/rerank", "Order documents by a query.", rerank, requests.RerankRequest, responses.RerankResponse),
    Route("/classify", "Label texts.", classify, requests.ClassificationRequest, responses.ClassificationResponse),
    Route("/v1/models", "List the models.", list_models, response_type=responses.ModelList),
    Route("/v1/models/{model:path}", "Show a model.", show_model, response_type=responses.ModelCard),
    Route("/health/live", "Whether the server answers; waits for no model.", live, is_open=True),
    Route("/health/ready", "Whether every model has done work and requests are taken.", ready, is_open=True),
    Route("/metrics", "Metrics for Prometheus.", metrics),
)
ROUTES = (*_INTERFACE, *page_routes(_INTERFACE))
