"""`/api/query`: a question in, the whole answer out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi import Query as FromUrl

from app.cascade.types import Query
from app.http.dependencies import TheAccount, TheDeadline, TheEngine, TheSettings
from app.http.disconnect import while_connected
from app.http.schemas import QueryBody, QueryRequest, QueryResponse, check_length
from app.http.strict import StrictRoute
from app.settings import Settings

router = APIRouter(tags=["query"], route_class=StrictRoute)


def to_query(request: QueryRequest, settings: Settings, deadline: float | None) -> Query:
    """The query of a request, if it is not too long."""
    check_length(request.query, settings.max_query_chars)
    return request.to_query(deadline)


async def from_body(body: QueryBody, settings: TheSettings, deadline: TheDeadline = None) -> Query:
    """The query in a JSON body."""
    return to_query(body, settings, deadline)


async def from_url(
    url: Annotated[QueryRequest, FromUrl()], settings: TheSettings, deadline: TheDeadline = None
) -> Query:
    """The query in the URL's parameters."""
    return to_query(url, settings, deadline)


@router.post("/api/query")
async def post_query(
    request: Request,
    query: Annotated[Query, Depends(from_body)],
    engine: TheEngine,
    account: TheAccount,
) -> QueryResponse:
    """Ask the cascade."""
    return QueryResponse.of(await while_connected(request, engine.ask(query, account)))


@router.get("/api/query")
async def get_query(
    request: Request,
    query: Annotated[Query, Depends(from_url)],
    engine: TheEngine,
    account: TheAccount,
) -> QueryResponse:
    """Ask the cascade by URL; prefer POST, since URLs end up in other people's logs."""
    return QueryResponse.of(await while_connected(request, engine.ask(query, account)))
