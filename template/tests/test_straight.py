"""The straight way to a route: it answers as FastAPI's own way would, and passes nobody by."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from app.http import problems
from app.http.problems import Problem
from app.http.requests import BodyLimit
from app.http.straight import StraightApp, StraightRoute
from app.http.strict import StrictRoute
from tests.conftest import Background, client_of, started

JSON = {"Content-Type": "application/json"}
GOOD = b'{"text": "hi", "times": 2}'
Dependency = Callable[..., Any]
Serve = Callable[[FastAPI], httpx.Client]


class Question(BaseModel):
    """What the routes here are asked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str
    times: int = 1


def passed(request: Request, by: str) -> None:
    request.state.passed = [*getattr(request.state, "passed", []), by]


async def guard(request: Request) -> None:
    """Asks for nothing but the request, as the service's guards do."""
    passed(request, "guard")


class Lock:
    """The same, as an object."""

    async def __call__(self, request: Request) -> None:
        if "key" not in request.headers:
            raise Problem(401, "unauthorized", "No key.")
        passed(request, "lock")


def in_a_thread(request: Request) -> None:
    passed(request, "in a thread")


async def until_the_end(request: Request) -> AsyncIterator[None]:
    passed(request, "until the end")
    yield


async def with_a_header(request: Request, key: Annotated[str, Header()]) -> None:
    passed(request, key)


async def with_a_choice(request: Request, tone: str = "none") -> None:
    passed(request, tone)


async def with_a_name(request: "Request") -> None:
    passed(request, "with a name")


async def with_another(request: Request, _: Annotated[None, Depends(in_a_thread)]) -> None:
    passed(request, "with another")


router = APIRouter(route_class=StrictRoute)


@router.post("/ask")
async def ask(request: Request, body: Question) -> Response:
    """Made as the service's own routes."""
    return Response(to_json([request.state.passed, body]), media_type="application/json")


@router.post("/unwritten")
async def unwritten(request: Request, body: Question) -> list[str]:
    """FastAPI writes its answer."""
    return [*request.state.passed, body.text]


@router.post("/more")
async def more(request: Request, body: Question, tone: str = "") -> Response:
    """Takes something from the URL."""
    return Response(f"{request.state.passed} {body} {tone}")


@router.post("/maybe")
async def maybe(request: Request, body: Question | None = None) -> Response:
    """Can do without a body."""
    return Response(f"{request.state.passed} {body}")


def app_of(kind: type[FastAPI], *dependencies: Dependency) -> FastAPI:
    app = kind()
    app.include_router(router, dependencies=[Depends(each) for each in dependencies])
    return app


@pytest.fixture(scope="module")
def serve(background: Background) -> Iterator[Serve]:
    """Starts an app, with the service's problems and limit of a body; returns a client of it."""
    with ExitStack() as stack:

        def start(app: FastAPI) -> httpx.Client:
            app.add_middleware(BodyLimit, limit=10_000)
            problems.install(app)
            service = background.run(started(app))
            stack.callback(service.stop)
            return stack.enter_context(client_of(service.url))

        yield start


@pytest.fixture(scope="module")
def both(serve: Serve) -> tuple[httpx.Client, httpx.Client]:
    """The same routes behind the same guards, included by us and by FastAPI."""
    return serve(app_of(StraightApp, guard, Lock())), serve(app_of(FastAPI, guard, Lock()))


def said(
    client: httpx.Client, path: str, content: bytes, **headers: str
) -> tuple[int, str | None, str]:
    found = client.post(path, content=content, headers=JSON | headers)
    return found.status_code, found.headers.get("content-type"), found.text


@pytest.mark.parametrize(
    "path", ["/ask", "/ask?tone=kind", "/unwritten", "/more?tone=kind", "/maybe"]
)
@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        b'{"text": "hi"}',
        b' {"text": "h\\u00e4"}\n',
        b'{"text": 1, "times": "two"}',
        b'{"text": "hi", "more": 1}',
        b'{"text": "hi", "text": "ho"}',
        b'[{"text": "hi"}]',
        b"null",
        b"{",
        b"",
        b'{"text": "\xff"}',
        b"[" * 9_000,
        b'{"text": "%s"}' % (b"x" * 10_000),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"Key": "mine"},
        {},
        {"Key": "mine", "Content-Type": "application/json; charset=utf-8"},
        {"Key": "mine", "Content-Type": "text/plain"},
    ],
)
def test_an_answer_is_that_of_fastapis_way(
    both: tuple[httpx.Client, httpx.Client], path: str, content: bytes, headers: dict[str, str]
) -> None:
    straight, roundabout = (said(each, path, content, **headers) for each in both)
    assert straight == roundabout


@pytest.mark.parametrize("last", [b'"hi"}', b"1}", b'"hi"'])
def test_a_body_may_come_in_pieces(both: tuple[httpx.Client, httpx.Client], last: bytes) -> None:
    """Those of one that is refused are read once more by FastAPI, which says why."""
    straight, roundabout = (
        each.post("/ask", content=iter([b'{"text": ', b"", last]), headers=JSON | {"Key": "mine"})
        for each in both
    )
    assert straight.text == roundabout.text
    assert straight.status_code == (200 if last == b'"hi"}' else 422)


@pytest.mark.parametrize(
    "dependency",
    [in_a_thread, until_the_end, with_a_header, with_a_choice, with_a_name, with_another],
)
def test_whoever_is_depended_on_is_asked(serve: Serve, dependency: Dependency) -> None:
    apps = (
        app_of(StraightApp, guard, dependency, Lock()),
        app_of(FastAPI, guard, dependency, Lock()),
    )
    straight, roundabout = (said(serve(app), "/ask", GOOD, Key="mine") for app in apps)
    assert straight == roundabout
    assert straight[0] == 200


def test_only_what_needs_nothing_of_fastapi_goes_straight() -> None:
    routes = app_of(StraightApp, guard, Lock()).routes
    assert [each.route.path for each in routes if isinstance(each, StraightRoute)] == ["/ask"]


@pytest.mark.parametrize("taken", ["/ask", "/{name}"])
def test_the_route_that_came_first_is_asked(serve: Serve, taken: str) -> None:
    """A straight way is no way past another."""
    first, app = APIRouter(), StraightApp()
    first.add_api_route(taken, unwritten, methods=["POST"])
    app.include_router(first, dependencies=[Depends(guard)])
    app.include_router(router, dependencies=[Depends(Lock())])
    assert said(serve(app), "/ask", GOOD)[2] == '["guard","hi"]'


def test_guards_are_asked_in_order_and_once(serve: Serve) -> None:
    assert said(serve(app_of(StraightApp, guard, Lock(), guard)), "/ask", GOOD, Key="mine")[2] == (
        '[["guard","lock"],{"text":"hi","times":2}]'
    )


def test_a_guard_that_a_test_overrides_is_not_asked(serve: Serve) -> None:
    app = app_of(StraightApp, guard)
    app.dependency_overrides[guard] = in_a_thread
    assert said(serve(app), "/ask", GOOD)[2].startswith('[["in a thread"],')


def test_routers_within_routers_are_guarded_too(serve: Serve) -> None:
    outer, app = APIRouter(prefix="/within", dependencies=[Depends(guard)]), StraightApp()
    outer.include_router(router)
    app.include_router(outer, dependencies=[Depends(Lock())])
    client = serve(app)
    assert said(client, "/within/ask", GOOD)[0] == 401
    assert said(client, "/within/ask", GOOD, Key="mine")[2].startswith('[["lock","guard"],')


def test_the_documents_are_those_of_fastapis_way() -> None:
    assert (
        app_of(StraightApp, guard, with_a_header).openapi()
        == app_of(FastAPI, guard, with_a_header).openapi()
    )
