"""What clients send and get: the fields and limits of the HTTP contract."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from app.cascade.types import Answer, Query
from app.http.strict import CONTROLS, NoControls, Whole


class QueryRequest(BaseModel):
    """A question. The longest `query` allowed is the setting MAX_QUERY_CHARS."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"query": "What is AI?", "max_tokens": 200}]},
    )

    query: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1),
        NoControls,
        Field(json_schema_extra={"pattern": rf"^[^{CONTROLS}]*[^\s{CONTROLS}][^{CONTROLS}]*$"}),
    ]
    max_tokens: Annotated[int, Field(ge=1, le=4000), Whole] = 100
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] = 0.7
    force_direct: Annotated[bool, Field(description="Ask the verifier at once")] = False

    def to_query(self, deadline: float | None = None) -> Query:
        """The query, to be answered within `deadline` seconds."""
        return Query.ask(
            self.query,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            force_direct=self.force_direct,
            deadline=deadline,
        )


class QueryBody(QueryRequest):
    """A question in JSON, where a value has its type; in a URL all are text."""

    model_config = ConfigDict(strict=True)


class UsageResponse(TypedDict):
    """The tokens of all calls of a query together."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool


class QueryResponse(TypedDict):
    """An answer. Money is in US dollars, time in milliseconds."""

    content: str
    model_used: str
    cost: float
    latency_ms: float
    cascaded: bool
    draft_accepted: bool | None
    total_cost: float
    baseline_cost: Annotated[float, Field(description="What the verifier alone would have cost")]
    saved: float
    complexity: str
    reason: str
    finish_reason: str | None
    degraded: Annotated[
        bool, Field(description="A rejected draft, sent because the verifier failed")
    ]
    usage: UsageResponse


def to_response(answer: Answer) -> QueryResponse:
    """The answer as the contract has it: the type checker sees to that, once and for all."""
    cost, usage = float(answer.cost), answer.usage
    return {
        "content": answer.content,
        "model_used": answer.model_used,
        "cost": cost,
        "latency_ms": round(answer.latency_ms, 3),
        "cascaded": answer.cascaded,
        "draft_accepted": answer.draft_accepted,
        "total_cost": cost,
        "baseline_cost": float(answer.baseline_cost),
        "saved": float(answer.saved),
        "complexity": answer.complexity,
        "reason": answer.reason,
        "finish_reason": answer.finish_reason,
        "degraded": answer.degraded,
        "usage": {
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "estimated": usage.estimated,
        },
    }


def check_length(text: str, limit: int, field: str = "query") -> None:
    """Refuse a text of more than `limit` characters as FastAPI refuses any other bad field.

    Raises:
        RequestValidationError: names the field and the limit.
    """
    if len(text) > limit:
        message = f"String should have at most {limit} characters"
        raise RequestValidationError(
            [{"type": "string_too_long", "loc": ("body", field), "msg": message, "input": None}]
        )


def amend(app: FastAPI, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Have `change` correct each operation of the OpenAPI document; it gets the document, too."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        found = described()
        for operations in found["paths"].values():
            for operation in operations.values():
                change(found, operation)
        return found

    # The way that FastAPI's documentation has for it.
    app.openapi = openapi  # type: ignore[method-assign]
