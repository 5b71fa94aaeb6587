"""The composition root: `create_app` puts the service together; nothing here is global."""

import gc
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from app import features, runtime
from app.about import about
from app.http import browsers, guard, hosts, keys, logs, problems
from app.http.drain import Drain, close_connections
from app.http.headers import AnswerHeaders
from app.http.keyring import Keyring
from app.http.requests import BodyLimit, LastResort, RequestLog, send_id
from app.http.straight import StraightApp
from app.ledger import opening
from app.routes import health, query, stats
from app.settings import Settings, load_settings

SILENT: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}
"""FastAPI's own telemetry holds query strings, and so prompts, and what exceptions say."""


def create_sole_app() -> FastAPI:
    """The app of a process that serves no other."""
    return alone(create_app())


def alone(app: FastAPI) -> FastAPI:
    """The app, to be served by this process and no other with it.

    What its start has made stays: looking at all of it again and again, as the garbage collector
    does, would hold the event loop for 40 ms and more each time. What queries under way have made
    goes with them, so that looking at it after every 700 objects finds hardly any garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])
    return app


def create_app(settings: Settings | None = None) -> FastAPI:
    """A service of its own: two calls give two that share nothing.

    Raises:
        ConfigurationError: the settings or `cascade.toml` allow no start; says what to change.
    """
    settings = settings or load_settings(Settings)
    logs.configure(settings.log_level, settings.log_lines)
    configured_keys = keys.parse(settings.api_keys.get_secret_value())
    models = runtime.configure(settings)
    ledger = opening.choose(settings)
    keyring = Keyring(configured_keys, ledger.keys)
    guard.check_start(keyring, settings.environment)
    installed = features.installed(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        observers = [observer for feature in installed for observer in feature.observers]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(ledger.running())
            await stack.enter_async_context(keyring.running())
            if not keyring.guarded:
                guard.check_start(keyring, settings.environment)
            for feature in installed:
                if feature.lifespan:
                    await stack.enter_async_context(feature.lifespan(app))
            app.state.engine = await stack.enter_async_context(
                runtime.running(settings, models, ledger, observers)
            )
            stack.enter_context(app.state.drain.on_signals(app.state.engine))
            yield
            app.state.engine = None

    answer_headers = [
        send_id,
        close_connections,
        browsers.secure,
        *(change for feature in installed for change in feature.answer_headers),
    ]
    me = about()
    app = StraightApp(
        title=me.name,
        version=me.version,
        description=me.summary,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.serves_docs else None,
        middleware=[
            Middleware(RequestLog),
            Middleware(AnswerHeaders, changes=answer_headers),
            *browsers.middleware(settings),
            Middleware(LastResort),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
            *(middleware for feature in installed for middleware in feature.middleware),
        ],
        responses=problems.responses(problems.ProblemDetail),
        telemetry=next((each.telemetry for each in installed if each.telemetry), SILENT),
    )
    app.state.settings = settings
    app.state.keyring = keyring
    app.state.ledger = ledger
    app.state.features = installed
    app.state.drain = Drain(settings.drain_seconds, settings.shutdown_grace_seconds)
    app.state.started = time.monotonic()
    app.state.engine = None
    problems.install(app)
    guard.document(app)

    guards = [
        *([Depends(hosts.require_known)] if settings.allowed_hosts else ()),
        Depends(guard.require("use", [check for each in installed for check in each.checks])),
        *(dependency for feature in installed for dependency in feature.dependencies),
    ]
    for router in (query.router, stats.router):
        app.include_router(router, dependencies=guards)
    for feature in installed:
        for router in feature.routers:
            app.include_router(router, dependencies=guards)
        for router in feature.open_routers:
            app.include_router(router)
    app.include_router(health.router)
    return app
