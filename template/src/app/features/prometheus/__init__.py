"""`/metrics` for Prometheus, the same whichever worker answers; and traces, if they are wanted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.middleware import Middleware

from app.cascade.errors import ConfigurationError
from app.features import Feature
from app.features.prometheus import processes
from app.features.prometheus.http import CountRequests
from app.features.prometheus.instruments import Instruments
from app.features.prometheus.moment import Moment, ask
from app.http import guard
from app.settings import EnvSettings, Settings, load_settings

if TYPE_CHECKING:
    from app.features.prometheus.traces import Traces

NAME = "prometheus"
TICK = 0.25
"""Seconds between two looks at what is in flight and at the event loop."""


class PrometheusSettings(EnvSettings):
    """Settings of this feature."""

    metrics_access: Literal["auto", "open", "key"] = "auto"
    """Who may read `/metrics`: anybody, or who has an API key; `auto` wants one in production."""
    otel_exporter_otlp_endpoint: str = ""
    """Where traces are sent, such as http://collector:4318; empty for nowhere."""


def feature(settings: Settings) -> Feature:
    """A registry of its own for each app."""
    mine = load_settings(PrometheusSettings)
    access = mine.metrics_access
    guarded = access == "key" or (access == "auto" and settings.environment == "production")
    processes.enter()
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    traces = _traces(mine.otel_exporter_otlp_endpoint)
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
        async with AsyncExitStack() as stack:
            if traces:
                await stack.enter_async_context(traces.running())
            watching = asyncio.create_task(_watch(app, instruments))
            stack.callback(watching.cancel)
            yield

    return Feature(
        name=NAME,
        open_routers=[router],
        middleware=[Middleware(CountRequests, instruments=instruments)],
        observers=[instruments.settled, *([traces.settled] if traces else [])],
        lifespan=lifespan,
        shared=processes.shared,
        on_decision=instruments.decided,
        telemetry=traces.config if traces else None,
    )


def _traces(endpoint: str) -> "Traces | None":
    if not endpoint:
        return None
    try:
        from app.features.prometheus.traces import Traces
    except ModuleNotFoundError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT: traces need the extra of that name:"
            " `uv sync --extra traces`"
        ) from None
    return Traces(endpoint)


async def _watch(app: FastAPI, instruments: Instruments) -> None:
    """How late the event loop comes to what is due, and what is in flight then."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK
        await asyncio.sleep(TICK)
        instruments.lag.observe(max(0.0, loop.time() - due))
        instruments.look(app)
