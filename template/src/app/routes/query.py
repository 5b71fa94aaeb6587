"""`/api/query`: a question in, the whole answer out."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Query as FromUrl
from pydantic_core import to_json

from app.cascade.types import Query
from app.http.dependencies import (
    TAKES_DEADLINE,
    get_account,
    get_deadline,
    get_engine,
    get_settings,
)
from app.http.disconnect import while_connected
from app.http.schemas import QueryBody, QueryRequest, QueryResponse, check_length, to_response
from app.http.strict import StrictRoute
from app.settings import Settings

router = APIRouter(tags=["query"], route_class=StrictRoute)


def to_query(request: QueryRequest, settings: Settings, deadline: float | None) -> Query:
    """The query of a request, if it is not too long."""
    check_length(request.query, settings.max_query_chars)
    return request.to_query(deadline)


@router.post("/api/query", response_model=QueryResponse, openapi_extra=TAKES_DEADLINE)
async def post_query(request: Request, body: QueryBody) -> Response:
    """Ask the cascade."""
    return await _answer(request, body)


@router.get("/api/query", response_model=QueryResponse, openapi_extra=TAKES_DEADLINE)
async def get_query(request: Request, url: Annotated[QueryRequest, FromUrl()]) -> Response:
    """Ask the cascade by URL; prefer POST, since URLs end up in other people's logs."""
    return await _answer(request, url)


async def _answer(request: Request, asked: QueryRequest) -> Response:
    # Called, since to depend on them takes FastAPI longer than the ledger takes for its books.
    settings, engine = await get_settings(request), await get_engine(request)
    query = to_query(asked, settings, await get_deadline(request))
    account = await get_account(request)
    answer = await while_connected(request, engine.ask(query, account))
    # Written here: FastAPI would check all of it once more.
    return Response(to_json(to_response(answer)), media_type="application/json")
