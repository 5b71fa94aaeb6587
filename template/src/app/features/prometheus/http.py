"""Requests by the template of their route."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.features.prometheus.instruments import Instruments

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})


class CountRequests:
    """Counts and times every request, whatever becomes of it."""

    def __init__(self, app: ASGIApp, instruments: Instruments) -> None:
        self.app = app
        self.instruments = instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            # Clients can make up paths without end; routes are as many as the service has.
            route = getattr(scope.get("route"), "path", "none")
            self.instruments.requests.labels(method, route, str(status)).inc()
            seconds = time.perf_counter() - started
            self.instruments.request_duration.labels(method, route).observe(seconds)
