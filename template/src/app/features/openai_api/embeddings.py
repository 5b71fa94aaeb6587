"""`/v1/embeddings`: what a client sends and gets."""

from typing import Annotated, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from app.cascade.types import Embedded, Embedding, Json
from app.features.openai_api.requests import Sendable, Strict
from app.http.strict import Text, Whole

Input = Annotated[Text, Field(min_length=1), Sendable]


class EmbeddingRequest(Strict):
    """The fields of OpenAI's embeddings; texts that are token numbers already are refused."""

    model_config = ConfigDict(extra="forbid")

    model: str
    input: Input | Annotated[list[Input], Field(min_length=1, max_length=100, fail_fast=True)]
    dimensions: Annotated[int | None, Field(ge=1, le=10_000), Whole] = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    def to_embedding(self, deadline: float | None) -> Embedding:
        options: dict[str, Json] = {}
        if self.dimensions is not None:
            options["dimensions"] = self.dimensions
        if self.encoding_format is not None:
            options["encoding_format"] = self.encoding_format
        return Embedding(self.texts, options, deadline)


class _Vector(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingResponse(BaseModel):
    """As OpenAI's API reference defines it, with the price beside it."""

    object: Literal["list"]
    data: list[_Vector]
    model: str
    usage: dict[str, int]
    cascade: dict[str, str | float]


def response(found: Embedded) -> Response:
    """The JSON of some vectors, written by what is quick with many numbers."""
    vectors = enumerate(found.vectors)
    tokens = found.usage.input_tokens
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": each} for i, each in vectors],
        "model": found.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "cascade": {"model_used": found.model, "cost": float(found.cost)},
    }
    return Response(to_json(body), media_type="application/json")
