"""`/v1/chat/completions` and `/v1/models`: any OpenAI client becomes a cascade by its base URL.

The model `cascade` is the cascade; the verifier's own name asks it directly. A draft is held back
until it is accepted, so a client never sees text that is withdrawn. Errors have OpenAI's shape.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    field_validator,
)
from starlette.exceptions import HTTPException

from app.cascade.config import ActiveCascade
from app.cascade.errors import CascadeError
from app.cascade.types import Answer, Event, Json, Message, Query, ToolCall
from app.features import Feature
from app.http.dependencies import TheAccount, TheDeadline, TheEngine, TheSettings
from app.http.disconnect import while_connected
from app.http.problems import (
    DOCUMENTED,
    MEDIA_TYPE,
    Problem,
    from_cascade,
    from_http,
    invalid,
    responses,
)
from app.http.schemas import check_length
from app.http.strict import StrictRoute, Text, Whole
from app.settings import Settings

CASCADE = "cascade"
PASSED_ON = (
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "response_format",
    "parallel_tool_calls",
)
SEED = 9_223_372_036_854_776_000
"""As OpenAI's reference has it: 2⁶³, in as many digits as JSON keeps."""
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
JsonT = TypeVar("JsonT")


def _sendable(value: JsonT) -> JsonT:
    """Python reads NaN and half a surrogate pair in JSON; an upstream could not be sent them."""
    json.dumps(value, ensure_ascii=False, allow_nan=False, default=dict).encode()
    return value


Sendable = AfterValidator(_sendable)


def _at_most(length: int) -> object:
    """Bounds a list, and tells of its first bad item alone: to list them all takes long."""
    return Field(max_length=length, fail_fast=True)


class Strict(BaseModel):
    """In JSON a value has its type."""

    model_config = ConfigDict(strict=True)


class TextPart(Strict):
    """One part of a message; only text is understood."""

    type: Literal["text"]
    text: Text


Parts = Annotated[list[TextPart], _at_most(100)]


class FunctionCall(Strict):
    """The function of a tool call."""

    name: str
    arguments: str


class ChatToolCall(Strict):
    """A tool call of an assistant's turn."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


Content = Annotated[Text | Parts, Sendable]


class _Turn(Strict):
    model_config = ConfigDict(extra="forbid")

    name: str | None = None


class SystemMessage(_Turn):
    """What the application says."""

    role: Literal["system", "developer"]
    content: Content

    def to_message(self) -> Message:
        return Message("system", _joined(self.content))


class UserMessage(_Turn):
    """What the user says."""

    role: Literal["user"]
    content: Content

    def to_message(self) -> Message:
        return Message("user", _joined(self.content))


class AssistantMessage(_Turn):
    """What a model said, or which tools it called."""

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    tool_calls: Annotated[Annotated[list[ChatToolCall], _at_most(128)] | None, Sendable] = None

    def to_message(self) -> Message:
        calls = tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in self.tool_calls or ()
        )
        return Message("assistant", _joined(self.content or ""), calls)


class ToolMessage(_Turn):
    """What a tool returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str

    def to_message(self) -> Message:
        return Message("tool", _joined(self.content), (), self.tool_call_id)


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Discriminator(
        "role",
        custom_error_type="role",
        custom_error_message="role is system, developer, user, assistant or tool",
    ),
]


def _joined(content: str | Sequence[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


class FunctionSchema(Strict):
    """A function that a model may ask for."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Json] | None = None
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _describes_an_object(cls, schema: dict[str, Json] | None) -> dict[str, Json] | None:
        """cascadeflow reads these two when it judges a call."""
        found = schema or {}
        properties, required = found.get("properties", {}), found.get("required", [])
        if not isinstance(properties, dict) or not all(
            isinstance(each, dict | bool) for each in properties.values()
        ):
            raise ValueError("properties must be an object of schemas")
        if not isinstance(required, list) or not all(isinstance(each, str) for each in required):
            raise ValueError("required must be a list of names")
        return schema


class ChatTool(Strict):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionSchema


Tools = Annotated[list[ChatTool], Field(min_length=1), _at_most(128)]


class StreamOptions(Strict):
    """What to send beside the text."""

    include_usage: bool = False


class ChatRequest(Strict):
    """The fields of OpenAI's chat completions that a cascade can honour; others are refused."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(examples=[CASCADE])]
    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, examples=[[{"role": "user", "content": "What is AI?"}]]),
        _at_most(1000),
    ]
    max_tokens: Annotated[int | None, Field(ge=1, le=4000), Whole] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=4000), Whole] = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.7
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=1), Whole] = 1
    user: str | None = None
    top_p: Annotated[float | None, Field(gt=0, le=1, allow_inf_nan=False)] = None
    stop: Annotated[str | Annotated[list[str], _at_most(4)] | None, Sendable] = None
    seed: Annotated[int | None, Field(ge=-SEED, le=SEED), Whole] = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: Annotated[dict[str, Json] | None, Sendable] = None
    tools: Annotated[
        Annotated[list[ChatTool], _at_most(128)] | None, Field(min_length=1), Sendable
    ] = None
    tool_choice: Annotated[str | dict[str, Json] | None, Sendable] = None
    parallel_tool_calls: bool | None = None

    def to_query(self, models: ActiveCascade, deadline: float | None) -> Query:
        options = {name: value for name in PASSED_ON if (value := getattr(self, name)) is not None}
        return Query(
            messages=tuple(message.to_message() for message in self.messages),
            max_tokens=self.max_completion_tokens or self.max_tokens or 1000,
            temperature=self.temperature,
            force_direct=self.model == models.verifier.name,
            options=options,
            tools=tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ()),
            tool_choice=self.tool_choice,
            deadline=deadline,
        )


class OpenAIRoute(StrictRoute):
    """Answers errors in OpenAI's shape, whichever dependency raised them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as failure:
                return _error(invalid(_by_position(failure)), status=400)
            except HTTPException as failure:
                return _error(from_http(failure), 400 if failure.status_code == 422 else None)
            except (Problem, CascadeError) as failure:
                return _error(from_cascade(failure))

        return handle_errors


def _by_position(failure: RequestValidationError) -> RequestValidationError:
    """A turn is named by its place alone; pydantic names its role as well."""
    return RequestValidationError(
        [
            {**error, "loc": (*where[:3], *where[4:]) if where[1:2] == ("messages",) else where}
            for error in failure.errors()
            for where in [tuple(error["loc"])]
        ]
    )


class _ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error, as OpenAI's API reference defines it."""

    error: _ErrorDetail


def _responses() -> dict[int | str, dict[str, Any]]:
    """Errors of these routes; and the service's own, of requests that reach no route."""
    found = responses(ErrorBody)
    for response in found.values():
        response["content"] = {MEDIA_TYPE: DOCUMENTED}
    return found


router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=_responses())


def feature(_: Settings) -> Feature:
    """The API needs no settings of its own."""
    return Feature(name="openai_api", routers=[router])


@router.get("/models")
async def list_models(engine: TheEngine) -> dict[str, Json]:
    """The names that `model` may have."""
    return {"object": "list", "data": [_model(name) for name in _names(engine.models)]}


@router.get("/models/{name:path}")
async def get_model(
    name: Annotated[str, Path(examples=[CASCADE])], engine: TheEngine
) -> dict[str, Json]:
    """One of them."""
    _check_model(name, engine.models)
    return _model(name)


async def chat_query(
    body: ChatRequest, engine: TheEngine, settings: TheSettings, deadline: TheDeadline = None
) -> Query:
    """The query in a chat request."""
    _check_model(body.model, engine.models)
    query = body.to_query(engine.models, deadline)
    check_length(
        "".join(message.content for message in query.messages), settings.max_query_chars, "messages"
    )
    last = query.messages[-1]
    if last.role not in ("user", "tool") or not last.content.strip():
        raise Problem(
            400,
            "invalid_request_error",
            "The last message must be the user's or a tool's, not empty.",
        )
    return query


async def open_stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left once the response has been sent."""
    async with AsyncExitStack() as stack:
        yield stack


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"content": {"text/event-stream": {"itemSchema": {"required": ["data"]}}}}},
)
async def create_chat_completion(
    request: Request,
    body: ChatRequest,
    query: Annotated[Query, Depends(chat_query)],
    engine: TheEngine,
    account: TheAccount,
    stack: Annotated[AsyncExitStack, Depends(open_stack)],
) -> dict[str, Json] | EventSourceResponse:
    """A chat completion by the cascade, as JSON or as server-sent events."""
    head = _head(body.model)
    if not body.stream:
        answer = await while_connected(request, engine.ask(query, account))
        message: dict[str, Json] = {
            "role": "assistant",
            "content": answer.content or None,
            "refusal": None,
        }
        if answer.tool_calls:
            message["tool_calls"] = [*_tool_calls(answer)]
        choice: Json = {
            "index": 0,
            "message": message,
            "finish_reason": answer.finish_reason or "stop",
            "logprobs": None,
        }
        return {
            **head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            "cascade": _facts(answer),
        }
    events = await stack.enter_async_context(engine.open(query, account, buffered=True))
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    return EventSourceResponse(
        _chunks(events, {**head, "object": "chat.completion.chunk"}, wants_usage),
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _chunks(
    events: AsyncIterator[Event], head: dict[str, Json], wants_usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: dict[str, Json], finish_reason: str | None = None, **more: Json) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _data({**head, "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    async for event in events:
        match event.type:
            case "chunk":
                yield chunk({"content": event.content})
            case "complete" if event.answer:
                answer = event.answer
                if answer.tool_calls:
                    calls = _tool_calls(answer)
                    numbered = [{"index": i, **call} for i, call in enumerate(calls)]
                    yield chunk({"tool_calls": [*numbered]})
                yield chunk({}, answer.finish_reason or "stop", cascade=_facts(answer))
                if wants_usage:
                    yield _data({**head, "choices": [], "usage": _usage(answer)})
                yield format_sse_event(data_str="[DONE]")
            case "error" if event.error:
                yield _data(_error_body(from_cascade(event.error)))
            case _:
                pass


def _names(models: ActiveCascade) -> tuple[str, ...]:
    return (CASCADE, models.verifier.name)


def _check_model(name: str, models: ActiveCascade) -> None:
    if name not in _names(models):
        known = " and ".join(_names(models))
        raise Problem(404, "model_not_found", f"There is no such model; there are {known}.")


def _model(name: str) -> dict[str, Json]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "cascade"}


def _head(model: str) -> dict[str, Json]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}


def _usage(answer: Answer) -> dict[str, Json]:
    """All calls together: a rejected draft was paid for, too."""
    usage = answer.usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _tool_calls(answer: Answer) -> list[dict[str, Json]]:
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in answer.tool_calls
    ]


def _facts(answer: Answer) -> dict[str, Json]:
    return {
        "model_used": answer.model_used,
        "cascaded": answer.cascaded,
        "draft_accepted": answer.draft_accepted,
        "cost": float(answer.cost),
        "saved": float(answer.saved),
    }


def _data(value: dict[str, Json]) -> bytes:
    return format_sse_event(data_str=json.dumps(value, ensure_ascii=False))


def _error(problem: Problem, status: int | None = None) -> JSONResponse:
    return JSONResponse(
        _error_body(problem), status or problem.status, headers=dict(problem.headers)
    )


def _error_body(problem: Problem) -> dict[str, Json]:
    kind = "invalid_request_error" if problem.status < 500 else "api_error"
    param = problem.errors[0].field if problem.errors else None
    found = _ErrorDetail(message=problem.detail, type=kind, param=param, code=problem.error)
    return {"error": found.model_dump()}
