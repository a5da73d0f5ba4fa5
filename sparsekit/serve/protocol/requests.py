"""Bodies of requests. A field that is not here is refused: to ignore it might answer something else."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Seed: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Truncate: TypeAlias = Annotated[
    bool, Meta(description="Cut texts that are longer than the model takes, and say so; otherwise they are refused.")
]


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """What all requests may have."""

    model: Annotated[str, Meta(description="May be left out where one model is served.")] | None = None
    user: Annotated[str, Meta(description="Has no effect.")] | None = None


class EmbeddingRequest(Request, kw_only=True):
    """As OpenAI's /v1/embeddings."""

    input: Annotated[
        str | Annotated[list[str | int | list[int]], Meta(min_length=1)],
        Meta(description="A text, texts, token ids of one or of several, with special tokens."),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[Count, Meta(description="Keep the first ones, and normalize.")] | None = None
    truncate: Truncate = False


class ClassificationRequest(Request, kw_only=True):
    """Texts, or pairs of texts."""

    input: Annotated[
        str | Annotated[list[str | list[str]], Meta(min_length=1)],
        Meta(description="A text, or a list of texts and of pairs: lists of two texts."),
    ]
    truncate: Truncate = False


class Document(Struct, forbid_unknown_fields=True):
    """A document as an object."""

    text: str


class RerankRequest(Request, kw_only=True):
    """As Cohere's /rerank."""

    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Annotated[Count, Meta(description="Answer the best ones only.")] | None = None
    return_documents: bool = False
    truncate: Truncate = False


class StreamOptions(Struct, forbid_unknown_fields=True):
    """Options of a stream."""

    include_usage: bool = False


class GenerationRequest(Request, kw_only=True):
    """What /v1/completions and /v1/chat/completions share. What is left out is as generation_config.json says."""

    max_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    seed: Seed | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[str], Meta(max_length=16)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Literal[1] = 1


class CompletionRequest(GenerationRequest, kw_only=True):
    """As OpenAI's /v1/completions."""

    prompt: Annotated[
        str | Annotated[list[str | int | list[int]], Meta(min_length=1)],
        Meta(description="A text, texts, token ids of one or of several."),
    ]


class TextPart(Struct, forbid_unknown_fields=True):
    """A part of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Struct, forbid_unknown_fields=True):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def as_text(self) -> dict[str, str]:
        """The message for a chat template."""
        parts = self.content
        return {"role": self.role, "content": parts if isinstance(parts, str) else "".join(one.text for one in parts)}


class ChatRequest(GenerationRequest, kw_only=True):
    """As OpenAI's /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Annotated[Count, Meta(description="As max_tokens.")] | None = None
