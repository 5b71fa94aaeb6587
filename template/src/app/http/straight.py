"""The straight way to a route of the API, wherever FastAPI's own leads to the same.

FastAPI looks for the route of an included router twice, and works out for each request anew what
the route depends on: together a twelfth of the instructions that a short question takes. What a
route documents, and what is said of a request that is refused, stays FastAPI's.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.params import Depends
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from app.http.strict import Handler, Straight, StrictRoute

_GIVEN = inspect.signature(APIRouter.add_api_route).parameters


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
            if isinstance(route, StrictRoute):
                self._go_straight(route, dependencies or (), router.routes[:number])
        super().include_router(router, dependencies=dependencies, **more)

    def _go_straight(
        self, route: StrictRoute, dependencies: Sequence[Depends], before: Sequence[BaseRoute]
    ) -> None:
        routes = self.router.routes
        asked = [*dependencies, *route.dependencies]
        way = _straight(route.endpoint, [*self.router.dependencies, *asked])
        if way is None or _is_hidden(route, [*routes, *before]):
            return
        given = {name: getattr(route, name) for name in _GIVEN if hasattr(route, name)}
        # Its response is made and documented elsewhere.
        given |= {"response_model": None, "responses": None, "include_in_schema": False}
        given |= {"dependencies": asked, "route_class_override": type(route)}
        self.router.add_api_route(**given)
        made = routes.pop()
        if isinstance(made, StrictRoute):
            made.straight = way
            routes.insert(sum(isinstance(each, StrictRoute) for each in routes), made)


def _is_hidden(route: StrictRoute, before: Sequence[BaseRoute]) -> bool:
    """Whether one of those before may answer in its place."""
    scope = {"type": "http", "path": route.path, "headers": []}
    return "{" in route.path or any(
        each.matches({**scope, "method": method})[0] is Match.FULL
        for each in before
        for method in route.methods or ()
    )


def _straight(endpoint: Callable[..., Any], dependencies: Sequence[Depends]) -> Straight | None:
    """What answers a good request of an `async def (request: Request, body: MODEL) -> Response`.

    There is none if the route or what it depends on asks for anything else. Left to FastAPI's
    `handle` are a body that is no JSON or not what it has to be, tests that override what is
    depended on, and requests that telemetry watches.
    """
    model = _body(endpoint)
    guards = [*dict.fromkeys(each.dependency for each in dependencies if each.dependency)]
    if model is None or any(_asked(guard) != [Request] for guard in guards):
        return None

    async def answer(request: Request, handle: Handler) -> Response:
        if (
            request.headers.get("content-type") != "application/json"
            or request.app.dependency_overrides
            or "fastapi.telemetry" in request.scope
        ):
            return await handle(request)
        try:
            body = model.model_validate(await request.json())
        except HTTPException:
            # Such as 413: nothing more would come, were the body read again.
            raise
        except Exception:
            return await handle(request)
        for guard in guards:
            await guard(request)
        response: Response = await endpoint(request, body)
        return response

    return answer


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
