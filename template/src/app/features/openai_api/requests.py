"""What a client sends: the fields of OpenAI's chat completions that a cascade can honour."""

import json
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    field_validator,
)

from app.cascade.config import ActiveCascade
from app.cascade.types import Json, Message, Query, ToolCall
from app.http.strict import Text, Whole

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


def _one(count: int | None) -> int | None:
    if count not in (1, None):
        raise ValueError("a cascade gives one answer: n is 1; ask again for another")
    return count


def _none(count: int | None) -> int | None:
    if count:
        raise ValueError("alternatives are not kept: ask for logprobs without top_logprobs")
    return count


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
    """What a model said, or which tools it called, with whatever a client adds to answers."""

    model_config = ConfigDict(extra="ignore")

    audio: None = None
    function_call: None = None
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
    """The fields of OpenAI's chat completions that a cascade can honour; others are refused.

    As with OpenAI, null is the same as a field that is not there.
    """

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, Field(examples=[CASCADE])]
    messages: Annotated[
        list[ChatMessage],
        Field(min_length=1, examples=[[{"role": "user", "content": "What is AI?"}]]),
        _at_most(1000),
    ]
    max_tokens: Annotated[int | None, Field(ge=1, le=4000), Whole] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=4000), Whole] = None
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[
        int | None, Whole, AfterValidator(_one), Field(json_schema_extra={"enum": [1, None]})
    ] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[
        int | None, Whole, AfterValidator(_none), Field(json_schema_extra={"enum": [0, None]})
    ] = None
    user: str | None = None
    metadata: dict[str, Json] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: Literal[False] | None = None
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
            temperature=0.7 if self.temperature is None else self.temperature,
            force_direct=self.model == models.verifier.name,
            undrafted=self.model == models.drafter.name,
            options=options,
            tools=tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ()),
            tool_choice=self.tool_choice,
            deadline=deadline,
        )
