"""Work for a client that may leave before it is done."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request

ResultT = TypeVar("ResultT")
SOON = 0.005
"""Seconds: by then a model has been asked, and there is time until it answers."""


class ClientGone(Exception):
    """Nobody is left to read the response."""


async def while_connected(request: Request, work: Coroutine[None, None, ResultT]) -> ResultT:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientGone: it did.
    """
    loop, working = asyncio.get_running_loop(), asyncio.current_task()
    done = left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if working and not done:
            left = working.cancel()

    def begin() -> None:
        # It ends by itself: ASGI servers say `http.disconnect` after the whole response as well.
        request.state.watching = loop.create_task(watch())

    beginning = loop.call_later(SOON, begin)
    try:
        return await work
    except asyncio.CancelledError:
        # Whoever else has cancelled it wants it to end.
        if left and working and not working.uncancel():
            raise ClientGone from None
        raise
    finally:
        done = True
        beginning.cancel()
