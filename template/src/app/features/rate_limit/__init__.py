"""Requests a minute for each client, by slowapi: 429 with Retry-After beyond, on every API route.

The limit is a check before the API's routes. slowapi's default limits would not reach included
routers on FastAPI 0.137 and newer (slowapi issue 281), and its decorator on each route could be
forgotten. Probes are not API routes, so they are never limited.
"""

import hashlib
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import Field, SecretStr
from slowapi.errors import RateLimitExceeded

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.features import Feature, Standing, decided
from app.features.rate_limit import places
from app.features.rate_limit.counting import Count, Rule, Window
from app.features.rate_limit.headers import remember, send_remembered
from app.features.rate_limit.limiter import Limiter, client_of
from app.features.rate_limit.reach import Reach
from app.http.problems import Problem
from app.ledger import OnFailure
from app.settings import EnvSettings, Settings, load_settings

NAME = "rate_limit"


class RateLimitSettings(EnvSettings):
    """Settings of this feature."""

    rate_limit: Annotated[int, Field(ge=1, le=1_000_000_000)] = 60
    """Requests a minute for each API key that has no limit of its own, or for each address."""
    rate_limit_window: Window = "fixed"
    """A minute from a client's first request; or `sliding`: any sixty seconds."""
    rate_limit_storage: SecretStr = SecretStr("")
    """Where they are counted; empty for beside the ledger. The URL may hold a password."""
    rate_limit_on_failure: OnFailure = "open"
    """While they cannot be counted: answer requests unlimited, or refuse them."""


def feature(settings: Settings) -> Feature:
    """A limiter of its own for each app."""
    mine = load_settings(RateLimitSettings)
    rule = Rule(mine.rate_limit, mine.rate_limit_window)
    place = places.choose(
        mine.rate_limit_storage.get_secret_value(), settings.ledger_url.get_secret_value(), rule
    )
    reach = Reach(place)
    limiter = Limiter()

    async def limit(request: Request) -> None:
        own = rule.with_limit(request.state.key_limit)
        try:
            count = await reach.hit(_digest(client_of(request)), own.limit)
        except LedgerUnavailable:
            decided(request, NAME, "uncounted")
            if mine.rate_limit_on_failure == "closed":
                raise _unavailable() from None
            return
        remember(request, _headers(own, count))
        try:
            limiter.decide(request, count, own.limit)
        except RateLimitExceeded:
            decided(request, NAME, "refused")
            raise _too_many(own, count) from None
        decided(request, NAME, "allowed")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with place.running():
            yield

    async def standing() -> Standing:
        return Standing(place.kind, await reach.reachable(), mine.rate_limit_on_failure)

    def check_shared() -> None:
        if place.kind == "memory":
            raise ConfigurationError(
                "RATE_LIMIT_STORAGE=memory:// is known to one process alone: each of several"
                " workers would let the whole limit through; sqlite:///file is shared"
            )

    return Feature(
        name=NAME,
        checks=[limit],
        answer_headers=[send_remembered],
        lifespan=lifespan,
        standing=standing,
        check_shared=check_shared,
    )


def _digest(client: str) -> str:
    """As long for every client; nobody reads names and addresses in passing."""
    return hashlib.blake2b(client.encode(), digest_size=16).hexdigest()


def _headers(rule: Rule, count: Count) -> dict[str, str]:
    """Whole numbers; the time is Unix time in seconds, rounded up."""
    return {
        "X-RateLimit-Limit": str(rule.limit),
        "X-RateLimit-Remaining": str(count.remaining),
        "X-RateLimit-Reset": str(math.ceil(time.time() + count.frees_in)),
    }


def _too_many(rule: Rule, count: Count) -> Problem:
    wait = max(1, math.ceil(count.frees_in))
    return Problem(
        429,
        "rate_limit_exceeded",
        f"More than {rule.limit} requests in a minute; try again in {wait} seconds.",
        {"Retry-After": str(wait)},
    )


def _unavailable() -> Problem:
    return Problem(
        503,
        f"{NAME}_unavailable",
        "Requests cannot be counted now, and none is answered uncounted.",
        {"Retry-After": "1"},
    )
