"""HTTP as every upstream speaks it: one POST, JSON or events back, and its faults by name."""

import asyncio
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING

import aiohttp
from pydantic_core import to_json

from app.cascade.errors import UpstreamFault
from app.cascade.turns import turn
from app.cascade.types import Json

if TYPE_CHECKING:
    from app.cascade.upstream import OnText

Read = Callable[[bytes], str]
"""Takes the `data` of an event and returns the text that it says, if any."""
CONNECT_SECONDS = 5.0
LINE_BYTES = 2**20
BODY_BYTES = 2**24
LINES_AT_ONCE = 32
"""Lines that say nothing are read one after the other; after so many others get their turn."""


def open_session() -> aiohttp.ClientSession:
    """A client session for all upstreams; the query's deadline bounds each call."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def request(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Mapping[str, Json] | None = None,
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    """Send one request on entering; what is entered is its response, if it is a 200.

    Raises:
        UpstreamFault: for any other status, and for whatever the network does meanwhile.
    """
    data = None
    if body is not None:
        data = aiohttp.BytesPayload(to_json(body), content_type="application/json")
    # A redirect could carry the key to another host.
    return _Request(session.request(method, url, headers=headers, data=data, allow_redirects=False))


@dataclass(slots=True)
class _Request:
    """A request whose failures are faults; each call makes one, and a generator takes longer."""

    sending: AbstractAsyncContextManager[aiohttp.ClientResponse]

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            response = await self.sending.__aenter__()
        except Exception as failure:
            _blame(failure)
            raise
        if response.status != 200:
            refusal = _refusal(response)
            await self.sending.__aexit__(None, None, None)
            raise refusal
        return response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.sending.__aexit__(kind, raised, trace)
        if raised:
            _blame(raised)


def _blame(failure: BaseException) -> None:
    """Raises UpstreamFault if the failure is the upstream's, or of the network on the way."""
    match failure:
        case TimeoutError():
            raise UpstreamFault("timeout") from None
        case aiohttp.ClientOSError() | aiohttp.ServerDisconnectedError():
            # No answer has begun: refused, or a kept connection that the upstream has closed.
            raise UpstreamFault("unreachable") from None
        case aiohttp.ClientError() | ConnectionError() | ValueError():
            raise UpstreamFault("interrupted") from None


async def body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body of a response.

    Raises:
        UpstreamFault: `malformed`, where it is larger than any answer.
    """
    parts: list[bytes] = []
    left = BODY_BYTES
    async for part in response.content.iter_any():
        left -= len(part)
        if left < 0:
            raise UpstreamFault("malformed")
        parts.append(part)
    return b"".join(parts)


async def events(response: aiohttp.ClientResponse, read: Read, on_text: "OnText") -> None:
    """Let `read` have each server-sent event to the end of the body, and `on_text` what it says.

    In a task of its own: each piece wakes every function from its task's first to the one that
    reads, and some forty lie between a request and its upstream.

    Raises:
        UpstreamFault: `malformed`, where they are more than any answer.
    """
    await asyncio.create_task(_read_all(response.content, read, on_text))


async def _read_all(content: aiohttp.StreamReader, read: Read, on_text: "OnText") -> None:
    left, count, begun = BODY_BYTES, 0, b""
    while part := await content.readany():
        left -= len(part)
        if left < 0 or len(begun) > LINE_BYTES:
            raise UpstreamFault("malformed")
        *lines, begun = (begun + part).split(b"\n")
        for line in lines:
            count += 1
            if count % LINES_AT_ONCE == 0:
                await turn()
            if line.startswith(b"data:") and (text := read(line[5:].strip())):
                await turn()
                await on_text(text)
    if begun.startswith(b"data:") and (text := read(begun[5:].strip())):
        await on_text(text)


def _refusal(response: aiohttp.ClientResponse) -> UpstreamFault:
    status = response.status
    if status in (429, 529):
        return UpstreamFault("overloaded", status, _retry_after(response.headers))
    if status in (408, 504):
        return UpstreamFault("timeout", status)
    return UpstreamFault("unavailable" if status >= 500 else "refused", status)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from either form of the header (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, seconds) if math.isfinite(seconds := float(value)) else None
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
