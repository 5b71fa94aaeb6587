"""The straight way to a route of the API, wherever FastAPI's own leads to the same.

FastAPI looks for the route of an included router twice, and works out for each request anew what
the route depends on: together a twelfth of the instructions that a short question takes. What a
route documents, and what is said of a request that is refused, stays FastAPI's.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.params import Depends
from pydantic import BaseModel
from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Message, Receive, Scope, Send

from app.http.strict import StrictRequest, StrictRoute

HANDED_BACK = "straight.handed_back"
"""In the scope of a request that FastAPI is to answer."""

Guard = Callable[[Request], Awaitable[object]]


class StraightApp(FastAPI):
    """Has straight ways to routes of its routers, ahead of what else a request is held against."""

    def include_router(
        self,
        router: APIRouter,
        *,
        dependencies: Sequence[Depends] | None = None,
        **more: Any,  # noqa: ANN401
    ) -> None:
        """As FastAPI does, which alone knows what to do with `more`."""
        for number, route in enumerate(() if more else router.routes):
            # A class of its own may do more than read strictly.
            if type(route) is StrictRoute:
                self._go_straight(route, dependencies or (), router.routes[:number])
        super().include_router(router, dependencies=dependencies, **more)

    def _go_straight(
        self, route: StrictRoute, dependencies: Sequence[Depends], before: Sequence[BaseRoute]
    ) -> None:
        routes = self.router.routes
        asked = [*self.router.dependencies, *dependencies, *route.dependencies]
        guards = [*dict.fromkeys(each.dependency for each in asked if each.dependency)]
        model = _body(route.endpoint)
        if model is None or any(_asked(guard) != [Request] for guard in guards):
            return
        if not _is_hidden(route, [*routes, *before]):
            ways = sum(isinstance(each, StraightRoute) for each in routes)
            routes.insert(ways, StraightRoute(route, model, guards))


def _is_hidden(route: StrictRoute, before: Sequence[BaseRoute]) -> bool:
    """Whether one of those before may answer in its place."""
    scope = {"type": "http", "path": route.path, "headers": []}
    return "{" in route.path or any(
        each.matches({**scope, "method": method})[0] is Match.FULL
        for each in before
        for method in route.methods or ()
    )


class StraightRoute(BaseRoute):
    """Answers good requests of a route `async def (request: Request, body: MODEL) -> Response`.

    Whatever else comes is handed back: a query string, a body that is no JSON or not what it has
    to be, tests that override what is depended on, and requests that telemetry watches.
    """

    def __init__(self, route: StrictRoute, model: type[BaseModel], guards: Sequence[Guard]) -> None:
        self.route = route
        self._model = model
        self._guards = guards

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        route = self.route
        if (
            scope["type"] != "http"
            or scope["path"] != scope.get("root_path", "") + route.path
            or scope["method"] not in (route.methods or ())
            or HANDED_BACK in scope
            or "fastapi.telemetry" in scope
        ):
            return Match.NONE, {}
        return Match.FULL, {"endpoint": route.endpoint, "path_params": {}, "route": route}

    def url_path_for(self, name: str, /, **path_params: object) -> URLPath:
        """Left to the route itself."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = StrictRequest(scope, receive, send)
        if (
            request.headers.get("content-type") != "application/json"
            or scope["query_string"]
            or request.app.dependency_overrides
        ):
            await _hand_back(request, receive, send)
            return
        try:
            body = self._model.model_validate(await request.json())
        except HTTPException:
            # Such as 413: nothing more would come, were the body read again.
            raise
        except Exception:
            await _hand_back(request, _once_more(request), send)
            return
        for guard in self._guards:
            await guard(request)
        response: Response = await self.route.endpoint(request, body)
        await response(scope, receive, send)


async def _hand_back(request: Request, receive: Receive, send: Send) -> None:
    request.scope[HANDED_BACK] = True
    await request.app.router(request.scope, receive, send)


def _once_more(request: Request) -> Receive:
    """What brings the body of a request once more, and then what comes after it."""
    brought = False

    async def receive() -> Message:
        nonlocal brought
        if brought:
            return await request.receive()
        brought = True
        return {"type": "http.request", "body": await request.body(), "more_body": False}

    return receive


def _body(endpoint: Callable[..., object]) -> type[BaseModel] | None:
    match _asked(endpoint):
        case [kind, type() as model] if kind is Request and issubclass(model, BaseModel):
            returned = inspect.signature(endpoint).return_annotation
            return model if isinstance(returned, type) and issubclass(returned, Response) else None
        case _:
            return None


def _asked(function: Callable[..., object]) -> list[object]:
    """The types of what a coroutine function has to be given, in order; None for what it may be.

    What is annotated by its name is left to FastAPI, which knows how to look it up.
    """
    if not any(map(inspect.iscoroutinefunction, (function, type(function).__call__))):
        return []
    try:
        parameters = inspect.signature(function).parameters.values()
    except NameError:
        return []
    return [each.annotation if each.default is each.empty else None for each in parameters]
