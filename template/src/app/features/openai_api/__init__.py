"""`/v1`: any OpenAI client, or Anthropic client, becomes a cascade by its base URL.

The model `cascade` is the cascade; a model's own name asks it directly. A draft is held back
until it is accepted, so a client never sees text that is withdrawn. Errors have the shape that
the client knows.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.sse import EventSourceResponse

from app.cascade.engine import Engine
from app.cascade.types import Json, Query
from app.features import Feature
from app.features.openai_api import answers, messages
from app.features.openai_api.embeddings import EmbeddingRequest, EmbeddingResponse
from app.features.openai_api.embeddings import response as response_of
from app.features.openai_api.errors import OpenAIRoute, documented
from app.features.openai_api.messages import MessagesErrorBody, MessagesRequest, MessagesRoute
from app.features.openai_api.requests import CASCADE, ChatRequest
from app.http.dependencies import TAKES_DEADLINE, TheAccount, TheDeadline, TheEngine, TheSettings
from app.http.disconnect import while_connected
from app.http.problems import Problem
from app.http.schemas import check_length
from app.settings import EnvSettings, Settings, load_settings

NAME = "openai_api"
NO_EMBEDDINGS = (
    "Nobody makes embeddings here: [embeddings] of cascade.toml names the model, and the simulator"
    " has none."
)


class OpenAISettings(EnvSettings):
    """Settings of this feature."""

    direct_models: Literal["use", "admin", "off"] = "use"
    """Which keys may ask a model by its own name: all, those with the role admin, or none."""


STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"itemSchema": {"required": ["data"]}}}}
}

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=documented())
anthropic = APIRouter(
    prefix="/v1",
    tags=["anthropic"],
    route_class=MessagesRoute,
    responses=documented(MessagesErrorBody),
)


def feature(_: Settings) -> Feature:
    """The routes; who may name which models is told to them by the app."""
    mine = load_settings(OpenAISettings)

    async def tell(request: Request) -> None:
        request.state.direct_models = mine.direct_models

    told = APIRouter(dependencies=[Depends(tell)])
    told.include_router(router)
    told.include_router(anthropic)
    return Feature(name=NAME, routers=[told])


async def allowed_models(request: Request, engine: TheEngine) -> tuple[str, ...]:
    """The names that this client may give as `model`."""
    rule, role = request.state.direct_models, request.state.key_role
    if rule == "off" or (rule == "admin" and role == "use"):
        return (CASCADE,)
    return (CASCADE, engine.models.verifier.name, engine.models.drafter.name)


TheModels = Annotated[tuple[str, ...], Depends(allowed_models)]


@router.get("/models")
async def list_models(models: TheModels, engine: TheEngine) -> dict[str, Json]:
    """The names that `model` may have, and that of the embeddings' if there are any."""
    embedder = engine.models.embedder
    names = (*models, embedder.name) if embedder else models
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/models/{name:path}")
async def get_model(
    name: Annotated[str, Path(examples=[CASCADE])], models: TheModels
) -> dict[str, Json]:
    """One of them."""
    _check_model(name, models)
    return _model(name)


async def chat_query(
    body: ChatRequest,
    engine: TheEngine,
    models: TheModels,
    settings: TheSettings,
    deadline: TheDeadline,
) -> Query:
    """The query in a chat request."""
    return _query(body, engine, models, settings, deadline)


async def messages_query(
    body: MessagesRequest,
    engine: TheEngine,
    models: TheModels,
    settings: TheSettings,
    deadline: TheDeadline,
) -> Query:
    """The query in a request of Anthropic's API."""
    return _query(body, engine, models, settings, deadline)


def _query(
    body: ChatRequest | MessagesRequest,
    engine: Engine,
    models: tuple[str, ...],
    settings: Settings,
    deadline: float | None,
) -> Query:
    _check_model(body.model, models)
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


@router.post("/embeddings", response_model=EmbeddingResponse, openapi_extra=TAKES_DEADLINE)
async def create_embeddings(
    request: Request,
    body: EmbeddingRequest,
    engine: TheEngine,
    settings: TheSettings,
    account: TheAccount,
    deadline: TheDeadline,
) -> Response:
    """Vectors of texts, by the model that `cascade.toml` names for it."""
    embedder = engine.models.embedder
    if embedder is None:
        raise Problem(404, "model_not_found", NO_EMBEDDINGS)
    _check_model(body.model, (embedder.name,))
    for text in body.texts:
        check_length(text, settings.max_query_chars, "input")
    work = engine.embed(body.to_embedding(deadline), account)
    return response_of(await while_connected(request, work))


async def open_stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered here is left once the response has been sent."""
    async with AsyncExitStack() as stack:
        yield stack


@router.post(
    "/chat/completions", response_model=None, responses=STREAMED, openapi_extra=TAKES_DEADLINE
)
async def create_chat_completion(
    request: Request,
    response: Response,
    body: ChatRequest,
    query: Annotated[Query, Depends(chat_query)],
    engine: TheEngine,
    account: TheAccount,
    stack: Annotated[AsyncExitStack, Depends(open_stack)],
) -> dict[str, Json] | EventSourceResponse:
    """A chat completion by the cascade, as JSON or as server-sent events."""
    logprobs = body.logprobs is True
    if not body.stream:
        answer = await while_connected(request, engine.ask(query, account))
        response.headers.update(answers.headers(answer))
        return answers.completion(body.model, answer, logprobs=logprobs)
    events = await stack.enter_async_context(engine.open(query, account, buffered=True))
    usage = body.stream_options is not None and body.stream_options.include_usage
    return _stream(answers.chunks(events, body.model, usage=usage, logprobs=logprobs))


@anthropic.post("/messages", response_model=None, responses=STREAMED, openapi_extra=TAKES_DEADLINE)
async def create_message(
    request: Request,
    response: Response,
    body: MessagesRequest,
    query: Annotated[Query, Depends(messages_query)],
    engine: TheEngine,
    account: TheAccount,
    stack: Annotated[AsyncExitStack, Depends(open_stack)],
) -> dict[str, Json] | EventSourceResponse:
    """A message by the cascade in Anthropic's shape, as JSON or as server-sent events."""
    if not body.stream:
        answer = await while_connected(request, engine.ask(query, account))
        response.headers.update(answers.headers(answer))
        return messages.message(body.model, answer)
    events = await stack.enter_async_context(engine.open(query, account, buffered=True))
    return _stream(messages.events(events, body.model))


def _stream(events: AsyncIterator[bytes]) -> EventSourceResponse:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(events, headers=headers)


def _check_model(name: str, models: tuple[str, ...]) -> None:
    if name not in models:
        known = ", ".join(models)
        raise Problem(404, "model_not_found", f"There is no such model for you. Ask for: {known}.")


def _model(name: str) -> dict[str, Json]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "cascade"}
