"""`/metrics` for Prometheus, the same whichever worker answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.middleware import Middleware

from app.features import Feature
from app.features.prometheus import processes
from app.features.prometheus.http import CountRequests
from app.features.prometheus.instruments import Instruments
from app.features.prometheus.moment import Moment, ask
from app.http import guard
from app.settings import EnvSettings, Settings, load_settings

NAME = "prometheus"
TICK = 0.25
"""Seconds between two looks at what is in flight and at the event loop."""


class PrometheusSettings(EnvSettings):
    """Settings of this feature."""

    metrics_access: Literal["auto", "open", "key"] = "auto"
    """Who may read `/metrics`: anybody, or who has an API key; `auto` wants one in production."""


def feature(settings: Settings) -> Feature:
    """A registry of its own for each app."""
    access = load_settings(PrometheusSettings).metrics_access
    guarded = access == "key" or (access == "auto" and settings.environment == "production")
    processes.enter()
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    router = APIRouter(dependencies=[Depends(guard.require("use"))] if guarded else [])

    @router.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """The exposition format of Prometheus, or OpenMetrics to who asks for it."""
        processes.check()
        instruments.look(request.app)
        answer = CollectorRegistry()
        processes.collect(registry, answer)
        answer.register(Moment(await ask(request.app)))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(answer), headers={"Content-Type": content_type})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_watch(app, instruments))
        try:
            yield
        finally:
            watching.cancel()

    return Feature(
        name=NAME,
        open_routers=[router],
        middleware=[Middleware(CountRequests, instruments=instruments)],
        observers=[instruments.settled],
        lifespan=lifespan,
        shared=processes.shared,
        on_decision=instruments.decided,
    )


async def _watch(app: FastAPI, instruments: Instruments) -> None:
    """How late the event loop comes to what is due, and what is in flight then."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        instruments.lag.observe(max(0.0, loop.time() - due))
        instruments.look(app)
