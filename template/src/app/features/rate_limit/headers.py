"""`X-RateLimit-*` on every answer of a limited route: of streams and errors, too."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STATE = "rate_limit_headers"


def remember(request: Request, headers: Mapping[str, str]) -> None:
    """Send these with the answer to the request, whatever it will be."""
    setattr(request.state, _STATE, headers)


class LimitHeaders:
    """Adds to an answer's start what was remembered; answers are not held back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(state.get(_STATE, {}))
            await send(message)

        await self.app(scope, receive, send_with_headers)
