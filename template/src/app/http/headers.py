"""What there is to every answer, whatever has answered: headers, and that it has begun."""

from collections.abc import Callable, Sequence

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATUS = "response_status"
"""In a request's state, once its answer has begun."""
Change = Callable[[Scope, MutableHeaders], None]


class AnswerHeaders:
    """Has `changes` look at the headers of each answer when it begins; none is held back."""

    def __init__(self, app: ASGIApp, changes: Sequence[Change]) -> None:
        self.app = app
        self.changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Made here, it is the same for whoever answers.
        scope.setdefault("state", {})

        async def send_changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["state"][STATUS] = message["status"]
                headers = MutableHeaders(scope=message)
                for change in self.changes:
                    change(scope, headers)
            await send(message)

        await self.app(scope, receive, send_changed)
