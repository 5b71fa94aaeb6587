"""`/v1/messages`: what a client of Anthropic's Messages API sends and gets."""

import json
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, model_validator

from app.cascade.config import ActiveCascade
from app.cascade.types import Answer, Event, Json, Message, Query, ToolCall, Usage
from app.features.openai_api.answers import facts
from app.features.openai_api.errors import OpenAIRoute
from app.features.openai_api.requests import (
    CASCADE,
    FunctionSchema,
    Parts,
    Sendable,
    Strict,
    TextPart,
)
from app.http.logs import REQUEST_ID
from app.http.problems import Problem, from_cascade
from app.http.strict import Handler, Text, Whole

CHOICES = {"auto": "auto", "any": "required", "none": "none"}
STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    # Anthropic's own word, which its upstream passes on.
    "refusal": "refusal",
}
ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def _as_blocks(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _or_text(blocks: Any) -> BeforeValidator:  # noqa: ANN401
    """A text is short for a block of it."""
    return BeforeValidator(_as_blocks, json_schema_input_type=Text | blocks)


def _at_most(length: int) -> Any:  # noqa: ANN401
    """As in `requests`: the first bad item alone is told."""
    return Field(max_length=length, fail_fast=True)


Texts = Annotated[Parts, _or_text(Parts), Sendable]


class ToolUse(Strict):
    """A tool that an assistant's turn has asked for."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Json]


class ToolResult(Strict):
    """What a tool returned; whether it had failed is for its text to say."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts = Field(default_factory=list)
    is_error: bool = False


Said = Annotated[TextPart | ToolUse, Discriminator("type")]
Told = Annotated[TextPart | ToolResult, Discriminator("type")]
SaidBlocks = Annotated[list[Said], _at_most(100)]
ToldBlocks = Annotated[list[Told], _at_most(100)]


class SystemTurn(Strict):
    """What the application says between the others' turns."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system"]
    content: Texts

    def to_messages(self) -> Iterator[Message]:
        yield Message("system", _text_of(self.content))


class UserTurn(Strict):
    """What the user says, and what tools have returned."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user"]
    content: Annotated[ToldBlocks, _or_text(ToldBlocks), Sendable]

    def to_messages(self) -> Iterator[Message]:
        results = [block for block in self.content if isinstance(block, ToolResult)]
        for result in results:
            yield Message("tool", _text_of(result.content), (), result.tool_use_id)
        if len(results) < len(self.content) or not results:
            yield Message("user", _text_of(self.content))


class AssistantTurn(Strict):
    """What a model said, or which tools it called."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["assistant"]
    content: Annotated[SaidBlocks, _or_text(SaidBlocks), Sendable]

    def to_messages(self) -> Iterator[Message]:
        calls = tuple(
            ToolCall(block.id, block.name, json.dumps(block.input))
            for block in self.content
            if isinstance(block, ToolUse)
        )
        yield Message("assistant", _text_of(self.content), calls)


Turn = Annotated[SystemTurn | UserTurn | AssistantTurn, Discriminator("role")]


def _text_of(blocks: Iterable[BaseModel]) -> str:
    return "".join(block.text for block in blocks if isinstance(block, TextPart))


class Tool(FunctionSchema):
    """A tool of the client's own: the service runs none."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["custom"] | None = None
    parameters: Annotated[dict[str, Json], Field(alias="input_schema")]
    cache_control: Json = None

    def to_function(self) -> dict[str, Json]:
        beside = {"type", "cache_control"}
        return {
            "type": "function",
            "function": self.model_dump(exclude=beside, exclude_none=True),
        }


class ToolChoice(Strict):
    """Which tools a model may or must ask for."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _names_the_tool(self) -> "ToolChoice":
        if (self.name is None) is (self.type == "tool"):
            raise ValueError("a name belongs to the type tool, and to no other")
        return self

    def to_choice(self) -> Json:
        if self.type == "tool":
            return {"type": "function", "function": {"name": self.name}}
        return CHOICES[self.type]


class MessagesRequest(Strict):
    """The fields of Anthropic's messages that a cascade can honour; others are refused."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(examples=[CASCADE])]
    max_tokens: Annotated[int, Field(ge=1, le=4000), Whole]
    messages: Annotated[
        list[Turn],
        Field(min_length=1, examples=[[{"role": "user", "content": "What is AI?"}]]),
        _at_most(1000),
    ]
    system: Texts = Field(default_factory=list)
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.7
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    stop_sequences: Annotated[list[str] | None, _at_most(4), Sendable] = None
    stream: bool = False
    tools: Annotated[list[Tool] | None, _at_most(128), Sendable] = None
    tool_choice: Annotated[ToolChoice | None, Sendable] = None
    metadata: dict[str, Json] | None = None
    cache_control: Json = None

    def to_query(self, models: ActiveCascade, deadline: float | None) -> Query:
        options: dict[str, Json] = {}
        if self.top_p is not None:
            options["top_p"] = self.top_p
        if self.stop_sequences:
            options["stop"] = [*self.stop_sequences]
        choice = self.tool_choice
        if choice and choice.disable_parallel_tool_use is not None:
            options["parallel_tool_calls"] = not choice.disable_parallel_tool_use
        return Query(
            messages=(
                *(Message("system", block.text) for block in self.system),
                *(message for turn in self.messages for message in turn.to_messages()),
            ),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            force_direct=self.model == models.verifier.name,
            undrafted=self.model == models.drafter.name,
            options=options,
            tools=tuple(tool.to_function() for tool in self.tools or ()),
            tool_choice=choice.to_choice() if choice else None,
            deadline=deadline,
        )


def message(model: str, answer: Answer) -> dict[str, Json]:
    """The JSON of an answer."""
    said: list[Json] = [_text(answer.content)] if answer.content else []
    return {
        **_head(model),
        "content": [*said, *_tool_uses(answer)],
        "stop_reason": _stop_reason(answer),
        "usage": _usage(answer.usage),
        "cascade": facts(answer),
    }


async def events(told: AsyncIterator[Event], model: str) -> AsyncIterator[bytes]:
    """The events of a stream; its tokens are known, and told, at its end."""
    start: dict[str, Json] = {"content": [], "stop_reason": None, "usage": _usage(Usage(0, 0))}
    yield _event("message_start", message={**_head(model), **start})
    yield _event("ping")
    spoken = 0
    async for event in told:
        match event.type:
            case "chunk":
                if not spoken:
                    yield _event("content_block_start", 0, content_block=_text(""))
                spoken = 1
                yield _event("content_block_delta", 0, delta=_text(event.content, "text_delta"))
            case "complete" if event.answer:
                answer = event.answer
                if spoken:
                    yield _event("content_block_stop", 0)
                for index, use in enumerate(_tool_uses(answer), start=spoken):
                    written: Json = {
                        "type": "input_json_delta",
                        "partial_json": json.dumps(use["input"]),
                    }
                    yield _event("content_block_start", index, content_block={**use, "input": {}})
                    yield _event("content_block_delta", index, delta=written)
                    yield _event("content_block_stop", index)
                yield _event(
                    "message_delta",
                    delta={"stop_reason": _stop_reason(answer), "stop_sequence": None},
                    usage=_usage(answer.usage),
                    cascade=facts(answer),
                )
                yield _event("message_stop")
            case "error" if event.error:
                yield _event("error", error=_error(from_cascade(event.error)))
            case _:
                pass


def _event(kind: str, index: int | None = None, **fields: Json) -> bytes:
    place = {} if index is None else {"index": index}
    data = json.dumps({"type": kind, **place, **fields}, ensure_ascii=False)
    return format_sse_event(event=kind, data_str=data)


def _text(text: str, kind: str = "text") -> dict[str, Json]:
    return {"type": kind, "text": text}


def _head(model: str) -> dict[str, Json]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        # No upstream of OpenAI's protocol says which it was.
        "stop_sequence": None,
    }


def _tool_uses(answer: Answer) -> list[dict[str, Json]]:
    return [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
        for call in answer.tool_calls
    ]


def _stop_reason(answer: Answer) -> str:
    reason = STOPS.get(answer.finish_reason or "", "end_turn")
    # Where the client had named the tool, OpenAI's models say `stop`.
    return "tool_use" if answer.tool_calls and reason == "end_turn" else reason


def _usage(usage: Usage) -> dict[str, Json]:
    """All calls together: a rejected draft was paid for, too."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.output_tokens,
    }


class _MessagesErrorDetail(BaseModel):
    type: str
    message: str


class MessagesErrorBody(BaseModel):
    """The body of every error, as Anthropic's API reference defines it."""

    type: Literal["error"]
    error: _MessagesErrorDetail


class MessagesRoute(OpenAIRoute):
    """Answers errors in Anthropic's shape, and all with `request-id`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_with_id(request: Request) -> Response:
            response = await handle(request)
            response.headers["request-id"] = REQUEST_ID.get()
            return response

        return handle_with_id

    def error_body(self, problem: Problem) -> dict[str, Json]:
        return {"type": "error", "error": _error(problem)}


def _error(problem: Problem) -> dict[str, Json]:
    usual = "invalid_request_error" if problem.status < 500 else "api_error"
    return {"type": ERRORS.get(problem.status, usual), "message": problem.detail}
