"""Around each request: an id, one log line without query string or body, a last resort, a limit."""

import asyncio
import logging
import re
import secrets
import time
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import logs, problems
from app.http.headers import STATUS

log = logging.getLogger("app.access")
ACCEPTED_ID = re.compile(rb"\A[A-Za-z0-9._-]{1,128}\Z")


class RequestLog:
    """Takes or makes a request's id, and logs method, path, status and duration.

    Within it are `AnswerHeaders`, which know the status.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given.decode() if ACCEPTED_ID.match(given) else secrets.token_hex(16)
        logs.REQUEST_ID.set(request_id)
        started = time.perf_counter()
        try:
            await self.app(scope, receive, send)
        finally:
            milliseconds = round((time.perf_counter() - started) * 1000, 1)
            # After the answer: what is sent goes out when the loop comes round.
            asyncio.get_running_loop().call_soon(_log, scope, milliseconds)


def _log(scope: Scope, milliseconds: float) -> None:
    method, path, status = scope["method"], quote(scope["path"]), scope["state"].get(STATUS)
    fields = {"method": method, "path": path, "status": status, "duration_ms": milliseconds}
    log.info(
        "%s %s %s %.1fms", method, path, status or "-", milliseconds, extra={logs.FIELDS: fields}
    )


def send_id(_: Scope, headers: MutableHeaders) -> None:
    """Add `X-Request-ID`."""
    headers.raw.append((b"x-request-id", logs.REQUEST_ID.get().encode()))


class LastResort:
    """Answers 500 to what nothing else has caught, within `AnswerHeaders`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except Exception as failure:
            problem = problems.unexpected(failure)
            if STATUS in scope["state"]:
                # The server logs what it is given; the failure's own text may hold a prompt.
                raise ConnectionAbortedError("the response broke off") from None
            await problems.respond(problem)(scope, receive, send)


class BodyLimit:
    """Refuses a body of more than `limit` bytes with 413, at the latest when they have come.

    Starlette's own limit answers in plain text, and without the request's id.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"")
        size = int(declared) if declared.isdigit() else 0
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if message["type"] == "http.request" and max(size, received) > self.limit:
                raise HTTPException(413, f"The body has more than {self.limit} bytes.")
            return message

        await self.app(scope, receive_within_limit, send)
