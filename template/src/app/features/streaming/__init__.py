"""`/api/query/stream`: the answer as server-sent events, while it is being made.

A stream is a sequence of events `{"type", "content", "data"}` and ends with `complete` or `error`:

    accepted   routing  chunk…  draft_decision  complete
    rejected   routing  chunk…  draft_decision  switch  chunk…  complete
    direct     routing  chunk…  complete
    failed     …  error

After `switch` the client throws away what it has shown: `data.discard` says how many characters.
With `mode=buffered` that is never any: text is sent once it cannot be withdrawn.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi import Query as FromUrl
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, WithJsonSchema
from pydantic_core import to_json
from starlette.types import Message, Receive, Scope, Send

from app.cascade.exchange import Emit
from app.cascade.types import Event, Json
from app.features import Feature
from app.features.streaming import playground
from app.http.dependencies import (
    TAKES_DEADLINE,
    get_account,
    get_deadline,
    get_engine,
    get_settings,
)
from app.http.disconnect import SOON, ClientGone, while_connected
from app.http.problems import from_cascade
from app.http.schemas import QueryBody, QueryRequest, to_response
from app.http.strict import StrictRoute
from app.routes.query import to_query
from app.settings import EnvSettings, Settings, load_settings

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 15.0
"""A proxy may take a connection for dead on which nothing is said for longer."""
# The latter for nginx.
NEVER_HELD_BACK = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
HEADERS = StreamingResponse((), headers=NEVER_HELD_BACK, media_type=MEDIA_TYPE).raw_headers
"""The same of every stream: made once, as Starlette would for each."""

router = APIRouter(tags=["query"], route_class=StrictRoute)


class StreamRequest(QueryRequest):
    """A question to be answered as a stream."""

    mode: Annotated[
        Literal["live", "buffered"],
        Field(description="live: drafts as they come; buffered: only text that stands"),
    ] = "live"


class StreamBody(StreamRequest, QueryBody):
    """The same in JSON."""


class StreamEvent(BaseModel):
    """One `data:` line of a stream."""

    type: str
    content: str = ""
    data: Annotated[dict[str, Json], WithJsonSchema({"type": "object"})] = {}


def _line(event: Event) -> bytes:
    """`complete` carries the whole answer in `data.result`, `error` a problem in `data`."""
    content: str = event.content
    data: object = event.data
    if event.answer:
        content = event.answer.content
        data = {"result": to_response(event.answer)}
    elif event.error:
        problem = from_cascade(event.error)
        content, data = problem.detail, problem.body()
    return b"data: %s\n\n" % to_json({"type": event.type, "content": content, "data": data})


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            MEDIA_TYPE: {
                "itemSchema": {
                    "type": "object",
                    "required": ["data"],
                    "properties": {
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": StreamEvent.model_json_schema(),
                        }
                    },
                }
            }
        }
    }
}


class StreamingSettings(EnvSettings):
    """Settings of this feature."""

    playground: Literal["auto", "on", "off"] = "auto"
    """Whether `/playground` is served; `auto`: not in production."""


def feature(settings: Settings) -> Feature:
    """The streams; and the page that shows them, where it is wanted."""
    wanted = load_settings(StreamingSettings).playground
    pages = [playground.router()] if settings.shows(wanted) else []
    return Feature(name="streaming", routers=[router], open_routers=pages)


class EventStream(Response):
    """Events that are sent as they come, and comments while none comes.

    What can be refused is refused when it is called, while a status can still be sent. The first
    event is sent while the model thinks, and not before it is asked. FastAPI's own way from a
    generator to the wire costs more than the rest of an event's way.
    """

    def __init__(self, tell: Callable[[Emit], Awaitable[None]]) -> None:
        self.status_code = 200
        self.media_type = MEDIA_TYPE
        self.background = None
        self.raw_headers = [*HEADERS]
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone):
            await while_connected(Request(scope, receive), self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        heard = 0.0
        opened, opening = False, asyncio.Lock()
        held: list[bytes] = []
        speaking: asyncio.TimerHandle | asyncio.Task[None] | None = None

        async def emit(event: Event) -> None:
            nonlocal heard, speaking
            heard = loop.time()
            if opened:
                await send(_body(_line(event)))
                return
            held.append(_line(event))
            if speaking is None:
                speaking = loop.call_later(SOON, begin)
            else:
                await open_()

        async def open_() -> None:
            nonlocal opened
            # The second event may come while the timer's task sends the first.
            async with opening:
                if opened:
                    return
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                while held:
                    lines = b"".join(held)
                    held.clear()
                    await send(_body(lines))
                opened = True

        def begin() -> None:
            nonlocal speaking
            speaking = loop.create_task(speak())

        async def speak() -> None:
            nonlocal heard
            await open_()
            while True:
                await asyncio.sleep(heard + PING_SECONDS - loop.time())
                if loop.time() - heard >= PING_SECONDS:
                    heard = loop.time()
                    await send(_body(b": ping\n\n"))

        try:
            await self._tell(emit)
            await open_()
        finally:
            if speaking:
                speaking.cancel()
        await send(_body(b"", more=False))


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@router.post(
    "/api/query/stream",
    response_class=StreamingResponse,
    responses=DOCUMENTED,
    openapi_extra=TAKES_DEADLINE,
)
async def post_stream(request: Request, body: StreamBody) -> EventStream:
    """Ask the cascade and watch it work."""
    return await _stream(request, body)


@router.get(
    "/api/query/stream",
    response_class=StreamingResponse,
    responses=DOCUMENTED,
    openapi_extra=TAKES_DEADLINE,
)
async def get_stream(request: Request, url: Annotated[StreamRequest, FromUrl()]) -> EventStream:
    """The same by URL, for the browser's `EventSource`."""
    return await _stream(request, url)


async def _stream(request: Request, asked: StreamRequest) -> EventStream:
    # Called, as in `routes/query.py`.
    settings, engine = await get_settings(request), await get_engine(request)
    query = to_query(asked, settings, await get_deadline(request))
    account = await get_account(request)
    buffered = asked.mode == "buffered"
    return EventStream(lambda emit: engine.tell(query, account, emit, buffered=buffered))
