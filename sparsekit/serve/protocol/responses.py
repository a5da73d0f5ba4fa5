"""Bodies of responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Finish = Literal["stop", "length"]


class ModelCard(Struct, kw_only=True):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "sparsekit"
    task: Annotated[str, Meta(description="embedding, classification or language.")]
    max_tokens: int
    is_ready: bool


class ModelList(Struct, kw_only=True):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class TokenDetails(Struct):
    """Of the tokens of prompts."""

    cached_tokens: int


class Usage(Struct, kw_only=True):
    """Tokens that were computed."""

    prompt_tokens: int
    completion_tokens: int | UnsetType = UNSET
    total_tokens: int
    prompt_tokens_details: TokenDetails | UnsetType = UNSET


class Embedding(Struct, kw_only=True):
    """The vector of a text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Annotated[list[float] | str, Meta(description="Numbers; or float32, little endian, in base64.")]
    truncated: bool | UnsetType = UNSET


class EmbeddingResponse(Struct, kw_only=True):
    """Vectors, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Label(Struct, kw_only=True):
    """The classification of a text."""

    index: int
    label: str
    score: float
    probabilities: Mapping[str, float]
    truncated: bool | UnsetType = UNSET


class ClassificationResponse(Struct, kw_only=True):
    """Classifications, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[Label]
    model: str
    usage: Usage


class RankedDocument(Struct):
    """A document."""

    text: str


class Ranked(Struct, kw_only=True):
    """A document's place."""

    index: int
    relevance_score: float
    document: RankedDocument | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET


class RerankResponse(Struct, kw_only=True):
    """Documents, the best first."""

    id: str
    results: list[Ranked]
    model: str
    usage: Usage


class TextChoice(Struct, kw_only=True):
    """A continuation, or a piece of it."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: Finish | None


class CompletionResponse(Struct, kw_only=True):
    """Continuations, or a piece of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType = UNSET


class ResponseMessage(Struct, kw_only=True):
    """What the model answers."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(Struct, kw_only=True):
    """An answer."""

    index: int = 0
    message: ResponseMessage
    logprobs: None = None
    finish_reason: Finish


class ChatResponse(Struct, kw_only=True):
    """An answer in a chat."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(Struct, kw_only=True):
    """A piece of a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str


class ChatPiece(Struct, kw_only=True):
    """A piece of an answer."""

    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: Finish | None


class ChatChunk(Struct, kw_only=True):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatPiece]
    usage: Usage | UnsetType = UNSET


class Fault(Struct, kw_only=True):
    """Why a request is not answered."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorResponse(Struct):
    """An error, in OpenAI's shape."""

    error: Fault
