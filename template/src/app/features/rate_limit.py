"""Requests a minute for each client, by slowapi: 429 with Retry-After beyond, on every API route.

The limit is a dependency of the API's routers. slowapi's default limits would not reach included
routers on FastAPI 0.137 and newer (slowapi issue 281), and its decorator on each route could be
forgotten. Probes are not API routes, so they are never limited.
"""

import math
import time
from typing import Annotated

from fastapi import Depends, Request, Response
from pydantic import Field
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
from slowapi.util import get_remote_address

from app.features import Feature
from app.http.problems import Problem
from app.settings import EnvSettings, Settings, load_settings


class RateLimitSettings(EnvSettings):
    """Settings of this feature."""

    rate_limit: Annotated[int, Field(ge=1)] = 60
    """Requests a minute for each client address."""


def feature(_: Settings) -> Feature:
    """A limiter of its own for each app."""
    per_minute = load_settings(RateLimitSettings).rate_limit
    limiter = Limiter(key_func=get_remote_address, headers_enabled=True)

    @limiter.shared_limit(f"{per_minute}/minute", scope="api")
    async def count(request: Request, response: Response) -> None:
        """slowapi counts the request before this runs, and adds its headers after."""

    async def limit(request: Request, response: Response) -> None:
        try:
            await count(request=request, response=response)
        except RateLimitExceeded:
            raise _too_many(limiter, request, per_minute) from None
        # slowapi sends it with every answer; it belongs to refusals (RFC 6585, section 4).
        del response.headers["Retry-After"]

    return Feature(name="rate_limit", dependencies=[Depends(limit)])


def _too_many(limiter: Limiter, request: Request, per_minute: int) -> Problem:
    item, identifiers = request.state.view_rate_limit
    resets_at, _ = limiter.limiter.get_window_stats(item, *identifiers)
    wait = max(1, math.ceil(resets_at - time.time()))
    return Problem(
        429,
        "rate_limit_exceeded",
        f"More than {per_minute} requests in a minute; try again in {wait} seconds.",
        {
            "Retry-After": str(wait),
            "X-RateLimit-Limit": str(per_minute),
            "X-RateLimit-Remaining": "0",
        },
    )
