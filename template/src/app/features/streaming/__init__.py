"""`/api/query/stream`: the answer as server-sent events, while it is being made.

A stream is a sequence of events `{"type", "content", "data"}` and ends with `complete` or `error`:

    accepted   routing  chunk…  draft_decision  complete
    rejected   routing  chunk…  draft_decision  switch  chunk…  complete
    direct     routing  chunk…  complete
    failed     …  error

After `switch` the client throws away what it has shown: `data.discard` says how many characters.
With `mode=buffered` that is never any: text is sent once it cannot be withdrawn.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as FromUrl
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, Field

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
    data: dict[str, Json] = {}

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


class StreamingSettings(EnvSettings):
    """Settings of this feature."""

    playground: Literal["auto", "on", "off"] = "auto"
    """Whether `/playground` is served; `auto`: not in production."""


def feature(settings: Settings) -> Feature:
    """The streams; and the page that shows them, where it is wanted."""
    wanted = load_settings(StreamingSettings).playground
    shown = wanted == "on" or (wanted == "auto" and settings.environment == "development")
    pages = [playground.router(about().name)] if shown else []
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


@router.post("/api/query/stream", response_class=EventSourceResponse)
async def post_stream(
    events: Annotated[AsyncIterator[Event], Depends(events_of_body)],
) -> AsyncIterator[StreamEvent]:
    """Ask the cascade and watch it work."""
    async for event in events:
        yield StreamEvent.of(event)


@router.get("/api/query/stream", response_class=EventSourceResponse)
async def get_stream(
    events: Annotated[AsyncIterator[Event], Depends(events_of_url)],
) -> AsyncIterator[StreamEvent]:
    """The same by URL, for the browser's `EventSource`."""
    async for event in events:
        yield StreamEvent.of(event)
