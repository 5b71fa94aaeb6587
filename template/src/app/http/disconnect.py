"""Work for a client that may leave before it is done."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import Request

ResultT = TypeVar("ResultT")


class ClientGone(Exception):
    """Nobody is left to read the response."""


async def while_connected(request: Request, work: Coroutine[None, None, ResultT]) -> ResultT:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientGone: it did.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
