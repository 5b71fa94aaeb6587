"""An orderly stop: what SIGTERM begins, and when the server is let go.

    SIGTERM      /readiness says 503, queries are still taken, connections are closed when answered
    + DRAIN      new queries are a 503 with Retry-After; those in flight go on
    + GRACE      those still in flight are told: a 503, or a stream's `error` event
    then         the server stops listening, the ledger settles, the process ends

What comes after DRAIN is skipped as soon as nothing is in flight. It needs no other server than the
one that runs the app: the signal is taken from its handler and given back when its time has come.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import Scope

from app.cascade.engine import Engine

LAST_WORDS = 2
"""Seconds in which a server should send what has been said when queries were ended."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], Any]


class Drain:
    """The stop of one app: `seconds` in which it still takes queries, `grace` for them to end."""

    def __init__(self, seconds: float, grace: float) -> None:
        self.begun = False
        self._seconds = seconds
        self._grace = grace
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def on_signals(self, engine: Engine) -> Iterator[None]:
        """Drain before the server's own handlers of SIGTERM and SIGINT are called, if it has any.

        SIGINT, from a terminal, skips the first step; a second one skips the rest.
        """
        in_main = threading.current_thread() is threading.main_thread()
        servers = {each: signal.getsignal(each) for each in SIGNALS} if in_main else {}
        if not callable(servers.get(signal.SIGTERM)):
            yield
            return
        loop = asyncio.get_running_loop()

        def take(number: int, frame: FrameType | None) -> None:
            def stop_server() -> None:
                handler = servers[signal.Signals(number)]
                if callable(handler):
                    handler(number, frame)

            loop.call_soon_threadsafe(self._take, number, engine, stop_server)

        for each in servers:
            signal.signal(each, take)
        try:
            yield
        finally:
            for each, handler in servers.items():
                signal.signal(each, handler)

    def _take(self, number: int, engine: Engine, stop_server: Callable[[], None]) -> None:
        if self._task is None:
            self.begun = True
            seconds = self._seconds if number == signal.SIGTERM else 0
            self._task = asyncio.create_task(self._drain(engine, seconds, stop_server))
        elif number == signal.SIGINT:
            engine.abandon()
            stop_server()

    async def _drain(self, engine: Engine, seconds: float, stop_server: Callable[[], None]) -> None:
        log.info("draining: %d in flight, queries are taken for %g s", engine.in_flight, seconds)
        await asyncio.sleep(seconds)
        engine.refuse()
        try:
            async with asyncio.timeout(self._grace):
                await engine.idle()
        except TimeoutError:
            log.warning("%d queries are ended after %g s", engine.in_flight, self._grace)
            engine.abandon()
        stop_server()


def close_connections(scope: Scope, headers: MutableHeaders) -> None:
    """Ask clients and proxies to come back on another connection, once the service drains."""
    drain: Drain = scope["app"].state.drain
    if drain.begun:
        headers["Connection"] = "close"
