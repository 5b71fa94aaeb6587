"""Stricter than JSON and Unicode have to be: no name twice in an object, no control characters.

RFC 8259, section 4, leaves it open what a name given twice means; a proxy in front may choose the
other value. Control characters in a prompt are an attack on a terminal or a mistake.
"""

import json
import re
from collections.abc import Callable, Coroutine

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator
from starlette.exceptions import HTTPException

from app.cascade.types import Json

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class RepeatedName(HTTPException):
    """A name stands twice in one JSON object."""

    def __init__(self, name: str) -> None:
        super().__init__(422, f"{name}: given twice")
        self.name = name


class StrictRoute(APIRoute):
    """Reads JSON bodies strictly; give it to a router as its `route_class`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Json:
        found: Json = json.loads(await self.body(), object_pairs_hook=_once)
        return found


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedName(next(name for name in names if names.count(name) > 1))
    return found


def _without_controls(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("control characters are not allowed")
    return text


NoControls = AfterValidator(_without_controls)
"""Refuses text with control characters other than tab and line ends."""
