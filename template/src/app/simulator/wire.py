"""The simulator as a web application: the OpenAI chat API in JSON and SSE, faults and counters."""

import asyncio
import json
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.requests import ClientDisconnect

from app.simulator import shapes
from app.simulator.mind import Thought, Token, count_tokens, think
from app.simulator.shapes import Call
from app.values import value

SMALL = "simulator-small"
LARGE = "simulator-large"
MODELS = (SMALL, LARGE)

_ROLES = {SMALL: "drafter", LARGE: "verifier"}
_LATENCY = {SMALL: (0.060, 0.004), LARGE: (0.250, 0.010)}
"""Seconds to the first token, and for each."""
_SLOW_TOKEN_SECONDS = 0.2
_CUT_AFTER_TOKENS = 4
_NOT_JSON = "this is not JSON {"
_DIRECTIVE = re.compile(
    r"\[\[(drafter|verifier|both):"
    r"([45]\d\d|hang|slow|cut|garbage|html|empty|nousage|nochoices|poor|good)\]\]",
    re.IGNORECASE | re.ASCII,
)
_MANNERS = ("poor", "good")


@value
class SimulatorConfig:
    """How the simulator behaves. `latency_scale` multiplies all waiting; 0 answers at once."""

    latency_scale: float = 1.0


@dataclass(slots=True)
class _Meter:
    """What became of the answers of one model."""

    started: int = 0
    finished: int = 0
    cancelled: int = 0
    in_flight: int = 0

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count one answer; it is cancelled if the client's departure ends the block."""
        self.started += 1
        self.in_flight += 1
        try:
            yield
            self.finished += 1
        except (asyncio.CancelledError, GeneratorExit, ClientDisconnect):
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    role: str
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _ChatRequest(BaseModel):
    """The fields that the simulator honours; any other field is accepted and ignored."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[
        list[str], BeforeValidator(lambda v: [v] if isinstance(v, str) else v or [])
    ] = []
    n: int | None = Field(1, ge=1, le=1)
    temperature: float | None = Field(None, ge=0, le=2)
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def question(self) -> str:
        """The last message of the user, or the last of anyone."""
        asked = [message for message in self.messages if message.role == "user"]
        return (asked or self.messages)[-1].text


@value
class _Reply:
    """One answer and all that decides how it is sent; times in seconds."""

    request: _ChatRequest
    thought: Thought
    fault: str
    first: float
    each: float
    head: dict[str, Any]
    """The fields that all objects of one answer share."""
    call: Call | None = None
    """Instead of a text."""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        if self.call is None:
            return []
        function = {"name": self.call.name, "arguments": self.call.arguments}
        return [{"id": f"call_{self.head['id'][-8:]}", "type": "function", "function": function}]

    @property
    def spoken(self) -> tuple[Token, ...]:
        """The tokens that are text."""
        return () if self.call else self.thought.tokens

    @property
    def finish_reason(self) -> str:
        return "tool_calls" if self.call else self.thought.finish_reason

    @property
    def usage(self) -> dict[str, int]:
        prompt = sum(count_tokens(message.text) for message in self.request.messages)
        answer = len(self.thought.tokens)
        total = prompt + answer
        return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": total}

    def choices(
        self, part: dict[str, Any], tokens: Sequence[Token], finish: str | None
    ) -> list[dict[str, Any]]:
        """The only choice, with its message or delta; none if that is the fault."""
        if self.fault == "nochoices":
            return []
        logprobs = None
        if self.request.logprobs and tokens:
            top = bool(self.request.top_logprobs)
            logprobs = {"content": [_logprob(token, top) for token in tokens], "refusal": None}
        return [{"index": 0, **part, "logprobs": logprobs, "finish_reason": finish}]


def create_simulator(config: SimulatorConfig | None = None) -> FastAPI:
    """Build the application. Two of them share nothing."""
    scale = (config or SimulatorConfig()).latency_scale
    meters = {model: _Meter() for model in MODELS}
    app = FastAPI(title="Simulator", openapi_url=None)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        owner = {"object": "model", "created": 0, "owned_by": "simulator"}
        return {"object": "list", "data": [{"id": model, **owner} for model in MODELS]}

    @app.get("/v1/simulator/stats")
    async def stats() -> dict[str, Any]:
        return {model: asdict(meter) for model, meter in meters.items()}

    @app.post("/v1/chat/completions")
    async def chat(http: Request) -> Response:
        try:
            request = _ChatRequest.model_validate_json(await http.body())
        except ValidationError as error:
            return _refuse(error)
        if request.model not in MODELS:
            message = f"The model `{request.model}` does not exist."
            return _error(404, message, code="model_not_found")
        reply = _prepare(request, scale)
        meter = meters[request.model]
        if request.stream and reply.fault not in ("hang", "html") and not reply.fault.isdecimal():
            return StreamingResponse(_stream(reply, meter), media_type="text/event-stream")
        with meter.answering():
            return await _answer(reply, http)

    @app.exception_handler(ClientDisconnect)
    async def nobody(_: Request, __: Exception) -> Response:
        return Response(status_code=499)

    return app


def _prepare(request: _ChatRequest, scale: float) -> _Reply:
    prompt, fault, manner = _read_directives(request.question, _ROLES[request.model])
    call, given = _shaped(request, prompt) if manner != "poor" else (None, None)
    thought = think(
        prompt,
        strong=request.model == LARGE,
        manner=manner,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        stop=request.stop,
        given=given,
    )
    if fault == "empty":
        thought = Thought((), "stop")
    first, each = (seconds * scale for seconds in _LATENCY[request.model])
    if fault == "slow":
        each = _SLOW_TOKEN_SECONDS
    asked = f"{request.model}\0{request.question}\0{thought.text}"
    head = {
        "id": f"chatcmpl-simulated-{zlib.crc32(asked.encode('utf-8', 'replace')):08x}",
        "created": int(time.time()),
        "model": request.model,
    }
    return _Reply(request, thought, fault, first, each, head, call if fault != "empty" else None)


def _shaped(request: _ChatRequest, prompt: str) -> tuple[Call | None, str | None]:
    """A call, or the text of an answer that is not prose."""
    last = request.messages[-1]
    if last.role == "tool":
        return None, f"The tool says: {last.text}"
    call = shapes.call(request.tools or [], request.tool_choice, prompt)
    return call, call.arguments if call else shapes.structured(request.response_format, prompt)


def _read_directives(prompt: str, role: str) -> tuple[str, str, str]:
    """The prompt without directives, and the last fault and the last manner for `role`, or ""."""
    asked = [
        what.lower()
        for who, what in reversed(_DIRECTIVE.findall(prompt))
        if who.lower() in (role, "both")
    ]
    fault = next((what for what in asked if what not in _MANNERS), "")
    manner = next((what for what in asked if what in _MANNERS), "")
    return _DIRECTIVE.sub("", prompt).strip(), fault, manner


# --- one JSON answer ---


async def _answer(reply: _Reply, http: Request) -> Response:
    fault, thought = reply.fault, reply.thought
    if fault == "hang":
        await _wait(http, None)
    if fault.isdecimal():
        return _error(int(fault), f"The prompt asked the simulator for status {fault}.")
    await _wait(http, reply.first + reply.each * len(thought.tokens))
    if fault == "html":
        return HTMLResponse("<!doctype html><title>Welcome</title><h1>It works!</h1>")
    message: dict[str, Any] = {"role": "assistant", "content": thought.text, "refusal": None}
    if reply.call:
        message |= {"content": None, "tool_calls": reply.tool_calls}
    body = {
        **reply.head,
        "object": "chat.completion",
        "choices": reply.choices({"message": message}, reply.spoken, reply.finish_reason),
    }
    if fault != "nousage":
        body["usage"] = reply.usage
    text = _NOT_JSON if fault == "garbage" else json.dumps(body)
    if fault == "cut":
        text = text[: len(text) // 2]
    return Response(text, media_type="application/json")


async def _wait(http: Request, seconds: float | None) -> None:
    """Wait, for ever with None.

    Raises:
        ClientDisconnect: as soon as the client is gone.
    """
    try:
        async with asyncio.timeout(seconds):
            while (await http.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return
    raise ClientDisconnect


# --- one stream ---


async def _stream(reply: _Reply, meter: _Meter) -> AsyncIterator[str]:
    with meter.answering():
        async for event in _events(reply):
            yield f"data: {event}\n\n"


async def _events(reply: _Reply) -> AsyncIterator[str]:
    options = reply.request.stream_options
    head = {**reply.head, "object": "chat.completion.chunk"}
    if options and options.include_usage:
        head["usage"] = None

    def chunk(
        delta: dict[str, Any], tokens: Sequence[Token] = (), finish: str | None = None
    ) -> str:
        return json.dumps({**head, "choices": reply.choices({"delta": delta}, tokens, finish)})

    await asyncio.sleep(reply.first)
    if reply.fault == "garbage":
        yield _NOT_JSON
        return
    yield chunk({"role": "assistant", "content": ""})
    cut = _CUT_AFTER_TOKENS if reply.fault == "cut" else None
    if reply.call:
        (call,) = reply.tool_calls
        begun = {**call, "function": {**call["function"], "arguments": ""}}
        yield chunk({"tool_calls": [{"index": 0, **begun}]})
        for token in reply.thought.tokens[:cut]:
            await asyncio.sleep(reply.each)
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": token.text}}]})
    for token in reply.spoken[:cut]:
        await asyncio.sleep(reply.each)
        yield chunk({"content": token.text}, [token])
    if cut:
        return
    yield chunk({}, finish=reply.finish_reason)
    if "usage" in head and reply.fault != "nousage":
        yield json.dumps({**head, "choices": [], "usage": reply.usage})
    yield "[DONE]"


# --- shapes ---


def _logprob(token: Token, top: bool) -> dict[str, Any]:
    """A token's entry. It is its own only alternative: the simulator considered no other."""
    data = list(token.text.encode("utf-8", "replace"))
    entry = {"token": token.text, "logprob": token.logprob, "bytes": data}
    return {**entry, "top_logprobs": [entry] if top else []}


def _refuse(error: ValidationError) -> Response:
    """Name the first problem of a body, and its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return _error(400, f"{field}: {first['msg']}" if field else first["msg"], field or None)


def _error(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> Response:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    error = {"message": message, "type": kind, "param": param, "code": code}
    headers = {"retry-after": "1"} if status == 429 else None
    return JSONResponse({"error": error}, status_code=status, headers=headers)
