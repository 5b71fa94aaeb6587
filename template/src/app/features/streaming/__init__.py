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
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as FromUrl
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.types import Message, Send

from app.about import about
from app.cascade.types import Event, Json
from app.features import Feature
from app.features.streaming import playground
from app.http.dependencies import TheAccount, TheDeadline, TheEngine, TheSettings
from app.http.problems import from_cascade
from app.http.schemas import QueryBody, QueryRequest, QueryResponse
from app.http.strict import StrictRoute
from app.routes.query import to_query
from app.settings import EnvSettings, Settings, load_settings

MEDIA_TYPE = "text/event-stream"
PING_SECONDS = 15.0
"""A proxy may take a connection for dead on which nothing is said for longer."""
PING: Message = {"type": "http.response.body", "body": b": ping\n\n", "more_body": True}
# The latter for nginx.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

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

    @classmethod
    def of(cls, event: Event) -> "StreamEvent":
        """`complete` carries the whole answer in `data.result`, `error` a problem in `data`."""
        if event.answer:
            result = QueryResponse.of(event.answer).model_dump()
            return cls(type=event.type, content=event.answer.content, data={"result": result})
        if event.error:
            problem = from_cascade(event.error)
            return cls(type=event.type, content=problem.detail, data=problem.body())
        return cls(type=event.type, content=event.content, data=dict(event.data))


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
    pages = [playground.router(about().name)] if settings.shows(wanted) else []
    return Feature(name="streaming", routers=[router], open_routers=pages)


async def events_of_body(
    body: StreamBody,
    settings: TheSettings,
    engine: TheEngine,
    account: TheAccount,
    deadline: TheDeadline = None,
) -> AsyncIterator[AsyncIterator[Event]]:
    """An open stream: what can be refused is refused here, while a status can still be sent."""
    query = to_query(body, settings, deadline)
    async with engine.open(query, account, buffered=body.mode == "buffered") as events:
        yield events


async def events_of_url(
    url: Annotated[StreamRequest, FromUrl()],
    settings: TheSettings,
    engine: TheEngine,
    account: TheAccount,
    deadline: TheDeadline = None,
) -> AsyncIterator[AsyncIterator[Event]]:
    """The same, of a question in the URL's parameters."""
    query = to_query(url, settings, deadline)
    async with engine.open(query, account, buffered=url.mode == "buffered") as events:
        yield events


class EventStream(StreamingResponse):
    """Events that are sent as they come, and comments while none comes.

    FastAPI's own way from a generator to the wire costs more than the rest of an event's way.
    """

    async def stream_response(self, send: Send) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()

        async def send_noting(message: Message) -> None:
            nonlocal heard
            heard = loop.time()
            if not message.get("more_body", True):
                pinging.cancel()
            await send(message)

        async def ping() -> None:
            while True:
                if (silent := loop.time() - heard) >= PING_SECONDS:
                    await send_noting(PING)
                else:
                    await asyncio.sleep(PING_SECONDS - silent)

        pinging = asyncio.create_task(ping())
        try:
            await super().stream_response(send_noting)
        finally:
            pinging.cancel()


async def _lines(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in events:
        yield b"data: %s\n\n" % StreamEvent.of(event).model_dump_json().encode()


@router.post("/api/query/stream", response_class=EventStream, responses=DOCUMENTED)
async def post_stream(
    events: Annotated[AsyncIterator[Event], Depends(events_of_body)],
) -> EventStream:
    """Ask the cascade and watch it work."""
    return EventStream(_lines(events), headers=HEADERS, media_type=MEDIA_TYPE)


@router.get("/api/query/stream", response_class=EventStream, responses=DOCUMENTED)
async def get_stream(
    events: Annotated[AsyncIterator[Event], Depends(events_of_url)],
) -> EventStream:
    """The same by URL, for the browser's `EventSource`."""
    return EventStream(_lines(events), headers=HEADERS, media_type=MEDIA_TYPE)
