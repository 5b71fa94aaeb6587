"""Stricter than JSON and Unicode have to be: no name twice in an object, no control characters.

RFC 8259, section 4, leaves it open what a name given twice means; a proxy in front may choose the
other value. Control characters in a prompt are an attack on a terminal or a mistake.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Annotated

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.cascade.types import Json

CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
CONTROL = re.compile(f"[{CONTROLS}]")

NAMES = 1000
"""In one object or query string; each may become an error, and listing errors takes long."""
OBJECTS = 5000
"""In one body; validating each takes some microseconds, in which nobody else is served."""


class Refused(HTTPException):
    """JSON that is not taken: which field, and why."""

    def __init__(self, field: str, why: str) -> None:
        # Half a surrogate pair cannot be sent back.
        self.field = field.encode(errors="replace").decode()
        self.why = why
        super().__init__(422, f"{self.field}: {why}")


Handler = Callable[[Request], Coroutine[None, None, Response]]


class StrictRoute(APIRoute):
    """Reads JSON bodies strictly; give it to a router as its `route_class`."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if request.scope["query_string"].count(b"&") >= NAMES:
                raise Refused("query", f"has more than {NAMES} names")
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


class StrictRequest(Request):
    """A request whose JSON is read strictly."""

    async def body(self) -> bytes:
        """As Starlette reads it, without a generator around what comes in one piece as a rule.

        Raises:
            ClientDisconnect: the client left before it had sent all.
        """
        if hasattr(self, "_body") or self._stream_consumed:
            return await super().body()
        parts = []
        while not self._stream_consumed:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self._is_disconnected = True
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            self._stream_consumed = not message.get("more_body", False)
        self._body = b"".join(parts)
        return self._body

    async def json(self) -> Json:
        # RFC 8259, section 8.1: JSON is UTF-8, though `json` would read other encodings too.
        text = str(await self.body(), "utf-8")
        # Braces within texts are among them: beyond so many, the objects are counted.
        return _READ(text) if text.count("{") <= OBJECTS else _read_counting(text)


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    if len(pairs) > NAMES:
        raise Refused("body", f"an object has more than {NAMES} names")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Refused(_first_repeated(pairs), "given twice")
    return found


_READ: Callable[[str], Json] = json.JSONDecoder(object_pairs_hook=_once).decode


def _read_counting(text: str) -> Json:
    objects = 0

    def counted(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        nonlocal objects
        objects += 1
        return _once(pairs)

    found: Json = json.loads(text, object_pairs_hook=counted)
    if objects > OBJECTS:
        raise Refused(_longest(found), f"has more than {OBJECTS} objects")
    return found


def _longest(found: Json) -> str:
    """The field with the longest list."""
    fields = found.items() if isinstance(found, dict) else ()
    lengths = {name: len(each) for name, each in fields if isinstance(each, list)}
    return max(lengths, key=lengths.__getitem__, default="body")


def _first_repeated(pairs: list[tuple[str, Json]]) -> str:
    counted = Counter(name for name, _ in pairs)
    return next(name for name, times in counted.items() if times > 1)


def _without_controls(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("control characters are not allowed")
    return text


def _without_fraction(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_without_fraction)
"""JSON has one kind of number: 100.0 is 100."""
NoControls = AfterValidator(_without_controls)
"""Refuses text with control characters other than tab and line ends."""
Text = Annotated[str, NoControls, Field(json_schema_extra={"pattern": f"^[^{CONTROLS}]*$"})]
