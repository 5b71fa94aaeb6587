"""The Anthropic wire: the Messages API, JSON and server-sent events."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
from pydantic import BaseModel, ValidationError

from app.cascade.config import Model
from app.cascade.errors import UpstreamFault
from app.cascade.types import Completion, Json, Message, Query, ToolCall, Usage
from app.cascade.upstream import wire
from app.values import value

if TYPE_CHECKING:
    from app.cascade.upstream import OnText

VERSION = "2023-06-01"
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}
CHOICES = {"auto": "auto", "required": "any", "none": "none"}


class _Usage(BaseModel):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def parsed(self, output_tokens: int | None = None) -> Usage:
        cached = self.cache_read_input_tokens or 0
        return Usage(
            self.input_tokens + cached + (self.cache_creation_input_tokens or 0),
            self.output_tokens if output_tokens is None else output_tokens,
            cached,
        )


class _Block(BaseModel):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Json] = {}


class _Body(BaseModel):
    content: list[_Block]
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Start(BaseModel):
    usage: _Usage | None = None


class _Delta(BaseModel):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _OutputTokens(BaseModel):
    output_tokens: int


class _Event(BaseModel):
    type: str
    index: int = 0
    message: _Start | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _OutputTokens | None = None


@value
class Anthropic:
    """The Messages API, as Anthropic's reference defines it; it reports no log probabilities."""

    session: aiohttp.ClientSession
    model: Model
    endpoint: str
    key: str | None

    async def answer(self, query: Query, on_text: "OnText | None" = None) -> Completion:
        body = self._body(query, stream=on_text is not None)
        url = f"{self.endpoint}/messages"
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
        key = {"x-api-key": self.key} if self.key else {}
        return {"anthropic-version": VERSION, **key}

    def _body(self, query: Query, *, stream: bool) -> dict[str, Json]:
        system = "\n\n".join(m.content for m in query.messages if m.role == "system")
        turns: list[Json] = [_turn(m) for m in query.messages if m.role != "system"]
        body: dict[str, Json] = {
            "model": self.model.name,
            "max_tokens": query.max_tokens,
            # Anthropic's range ends at 1, OpenAI's at 2.
            "temperature": min(query.temperature, 1.0),
            "messages": turns,
            "stream": stream,
        }
        if system:
            body["system"] = system
        if "top_p" in query.options:
            body["top_p"] = query.options["top_p"]
        stop = query.options.get("stop")
        if stop is not None:
            body["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        if query.tools:
            body["tools"] = [_tool(tool) for tool in query.tools]
        if query.tool_choice is not None:
            body["tool_choice"] = _choice(query.tool_choice)
        return body


def _turn(message: Message) -> dict[str, Json]:
    if message.role == "tool":
        result: Json = {
            "type": "tool_result",
            "tool_use_id": message.tool_call_id,
            "content": message.content,
        }
        return {"role": "user", "content": [result]}
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    said: list[Json] = [{"type": "text", "text": message.content}] if message.content else []
    asked: list[Json] = [
        {"type": "tool_use", "id": c.id, "name": c.name, "input": c.input}
        for c in message.tool_calls
    ]
    return {"role": "assistant", "content": said + asked}


def _tool(tool: dict[str, Json]) -> dict[str, Json]:
    function = tool.get("function")
    parts = function if isinstance(function, dict) else {}
    schema = {"input_schema": parts.get("parameters", {"type": "object"})}
    return {key: parts[key] for key in parts if key in ("name", "description")} | schema


def _choice(choice: Json) -> dict[str, Json]:
    if isinstance(choice, dict) and isinstance(function := choice.get("function"), dict):
        return {"type": "tool", "name": function.get("name")}
    return {"type": CHOICES.get(str(choice), "auto")}


def _whole(raw: bytes) -> Completion:
    body = _Body.model_validate_json(raw)
    return Completion(
        "".join(block.text for block in body.content if block.type == "text"),
        _finish(body.stop_reason),
        body.usage.parsed() if body.usage else None,
        tool_calls=tuple(
            ToolCall(block.id, block.name, json.dumps(block.input))
            for block in body.content
            if block.type == "tool_use"
        ),
    )


async def _streamed(response: aiohttp.ClientResponse, on_text: "OnText") -> Completion:
    text: list[str] = []
    finish: str | None = None
    start: _Usage | None = None
    usage: Usage | None = None
    tools: dict[int, ToolCall] = {}
    ended = False

    def read(data: bytes) -> str:
        nonlocal finish, start, usage, ended
        event = _Event.model_validate_json(data)
        match event.type:
            case "message_start":
                start = event.message.usage if event.message else None
            case "content_block_delta" if event.delta and event.delta.text:
                text.append(event.delta.text)
                return event.delta.text
            case "content_block_start" if event.content_block and event.content_block.id:
                tools[event.index] = ToolCall(event.content_block.id, event.content_block.name, "")
            case "content_block_delta" if event.delta and event.index in tools:
                known = tools[event.index]
                tools[event.index] = replace(
                    known, arguments=known.arguments + event.delta.partial_json
                )
            case "message_delta":
                finish = _finish(event.delta.stop_reason) if event.delta else finish
                if start and event.usage:
                    usage = start.parsed(event.usage.output_tokens)
            case "message_stop":
                ended = True
            case "error":
                raise UpstreamFault("unavailable")
        return ""

    await wire.events(response, read, on_text)
    if not ended:
        raise UpstreamFault("interrupted")
    return Completion("".join(text), finish, usage, tool_calls=tuple(tools.values()))


def _finish(reason: str | None) -> str | None:
    return FINISH.get(reason, reason) if reason else None
