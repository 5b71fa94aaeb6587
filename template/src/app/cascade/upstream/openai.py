"""The OpenAI-compatible wire: OpenAI itself, Groq, Together, Ollama, vLLM and the simulator."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Required

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from app.cascade.config import Model
from app.cascade.errors import UpstreamFault
from app.cascade.types import Completion, Json, Message, Query, ToolCall, Usage
from app.cascade.upstream import wire
from app.values import value

if TYPE_CHECKING:
    from app.cascade.upstream import OnText


class _CachedTokens(BaseModel):
    cached_tokens: int | None = None


class _ReasoningTokens(BaseModel):
    reasoning_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _CachedTokens | None = None
    completion_tokens_details: _ReasoningTokens | None = None

    def parsed(self) -> Usage:
        read, thought = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            (read.cached_tokens or 0) if read else 0,
            (thought.reasoning_tokens or 0) if thought else 0,
        )


class _Token(TypedDict):
    """One of hundreds in an answer: a model of pydantic's would take a third longer to read.

    Before Python 3.12 pydantic takes `TypedDict` from `typing_extensions` alone.
    """

    token: str
    logprob: float


class _Logprobs(TypedDict, total=False):
    content: list[_Token] | None


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(BaseModel):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


# A stream has a piece for each token: in dictionaries too, where any name may be missing.
class _Text(TypedDict, total=False):
    content: str | None
    tool_calls: list[_ToolCall] | None


class _Choice(TypedDict, total=False):
    message: Required[_Text]
    finish_reason: str | None
    logprobs: _Logprobs | None


class _Body(TypedDict, total=False):
    choices: Required[list[_Choice]]
    usage: _Usage | None


class _Delta(TypedDict, total=False):
    delta: Required[_Text]
    finish_reason: str | None
    logprobs: _Logprobs | None


class _Chunk(TypedDict, total=False):
    choices: list[_Delta]
    usage: _Usage | None


# The validators themselves: one call less for each piece.
_BODY = TypeAdapter(_Body).validator
_CHUNK = TypeAdapter(_Chunk).validator


@dataclass(slots=True)
class _Parts:
    text: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    tool_calls: dict[int, ToolCall] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: Usage | None = None
    done: bool = False

    def read(self, data: bytes) -> str:
        """Add an event of a stream; the text that it says."""
        if data == b"[DONE]":
            self.done = True
            return ""
        chunk: _Chunk = _CHUNK.validate_json(data)
        if usage := chunk.get("usage"):
            self.usage = usage.parsed()
        choices = chunk.get("choices")
        if not choices:
            return ""
        choice = choices[0]
        if reason := choice.get("finish_reason"):
            self.finish_reason = reason
        self.add_logprobs(choice.get("logprobs"))
        piece = choice["delta"]
        for call in piece.get("tool_calls") or ():
            self.add_tool_call(call.index, call)
        text = piece.get("content") or ""
        self.text.append(text)
        return text

    def add_logprobs(self, found: _Logprobs | None) -> None:
        for item in (found.get("content") if found else None) or ():
            self.tokens.append(item["token"])
            self.logprobs.append(item["logprob"])

    def add_tool_call(self, index: int, piece: _ToolCall) -> None:
        """Streams bring a call in pieces: first its name, then its arguments bit by bit."""
        known = self.tool_calls.get(index, ToolCall("", "", ""))
        self.tool_calls[index] = ToolCall(
            piece.id or known.id,
            piece.function.name or known.name,
            known.arguments + (piece.function.arguments or ""),
        )

    def completion(self) -> Completion:
        return Completion(
            "".join(self.text),
            self.finish_reason,
            self.usage,
            tuple(self.tokens),
            tuple(self.logprobs),
            tuple(self.tool_calls.values()),
        )


@value
class OpenAICompatible:
    """Chat completions, as OpenAI's API reference defines them."""

    session: aiohttp.ClientSession
    model: Model
    endpoint: str
    key: str | None

    async def answer(self, query: Query, on_text: "OnText | None" = None) -> Completion:
        body = self._body(query)
        if on_text is not None:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url = f"{self.endpoint}/chat/completions"
        async with wire.request(self.session, "POST", url, self._headers(), body) as response:
            try:
                if on_text is None:
                    return _whole(await wire.body(response))
                return await _streamed(response, on_text)
            except ValidationError:
                raise UpstreamFault("malformed") from None

    async def reach(self) -> None:
        url = f"{self.endpoint}/models"
        async with wire.request(self.session, "GET", url, self._headers()):
            pass

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _body(self, query: Query) -> dict[str, Json]:
        body: dict[str, Json] = {
            "model": self.model.name,
            "messages": [_message(message) for message in query.messages],
            "max_tokens": query.max_tokens,
            "temperature": query.temperature,
            **query.options,
        }
        if query.tools:
            body["tools"] = list(query.tools)
        if query.tool_choice is not None:
            body["tool_choice"] = query.tool_choice
        if self.model.asks_logprobs:
            body["logprobs"] = True
        return body


def _message(message: Message) -> dict[str, Json]:
    body: dict[str, Json] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        body["content"] = message.content or None
        body["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        body["tool_call_id"] = message.tool_call_id
    return body


def _whole(raw: bytes) -> Completion:
    body: _Body = _BODY.validate_json(raw)
    reported = body.get("usage")
    usage = reported.parsed() if reported else None
    if not body["choices"]:
        if usage is None:
            raise UpstreamFault("malformed")
        return Completion("", None, usage)
    choice = body["choices"][0]
    message = choice["message"]
    text = message.get("content") or ""
    parts = _Parts([text], finish_reason=choice.get("finish_reason"), usage=usage)
    parts.add_logprobs(choice.get("logprobs"))
    for index, call in enumerate(message.get("tool_calls") or ()):
        parts.add_tool_call(index, call)
    return parts.completion()


async def _streamed(response: aiohttp.ClientResponse, on_text: "OnText") -> Completion:
    parts = _Parts()
    await wire.events(response, parts.read, on_text)
    if not parts.done and parts.finish_reason is None:
        raise UpstreamFault("interrupted")
    return parts.completion()
