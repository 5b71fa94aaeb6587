"""An engine with all it needs: the models in use, their upstreams, and the simulator if need be."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

import aiohttp

from app.cascade.config import ActiveCascade, Model, activate, load
from app.cascade.engine import Engine, Observer
from app.cascade.errors import ConfigurationError
from app.cascade.types import Role
from app.cascade.upstream import Upstream, connect, wire
from app.cascade.upstream.embeddings import EmbeddingUpstream
from app.ledger import Ledger
from app.settings import Settings

log = logging.getLogger(__name__)


def configure(settings: Settings) -> ActiveCascade:
    """Read `cascade.toml`, and decide between its live models and the simulator.

    Raises:
        ConfigurationError: the file is wrong, a key is missing, or production would be simulated.
    """
    file = load(settings.cascade_file)
    keys = file.live_keys()
    missing = [name for name in keys if settings.key(name) is None]
    simulated = settings.simulator == "on" or (
        settings.simulator == "auto" and len(missing) == len(keys)
    )
    if simulated and settings.environment == "production":
        cure = f"set {' and '.join(missing)}" if missing else "set SIMULATOR=off"
        raise ConfigurationError(f"production does not run on the simulator: {cure}")
    if missing and not simulated:
        raise ConfigurationError(
            f"{' and '.join(missing)}: not set, and {settings.cascade_file} names"
            f" {'it' if len(missing) == 1 else 'them'}; SIMULATOR=on needs no key"
        )
    return activate(file, simulated=simulated)


@asynccontextmanager
async def upstreams(
    settings: Settings, models: ActiveCascade
) -> AsyncIterator[dict[Role, Upstream]]:
    """Connections to both models; a simulator of its own where the models are simulated."""
    with ExitStack() as stack:
        simulated = ""
        if models.simulated:
            # Real models start without it.
            from app import simulator

            simulated = stack.enter_context(simulator.running())
            log.warning(
                "the simulator answers: %s drafts, %s verifies; keys bring real models",
                models.drafter.name,
                models.verifier.name,
            )
        async with wire.open_session() as session:
            yield {
                "drafter": _connect(session, settings, models.drafter, simulated),
                "verifier": _connect(session, settings, models.verifier, simulated),
            }


@asynccontextmanager
async def running(
    settings: Settings,
    models: ActiveCascade,
    ledger: Ledger,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Engine]:
    """The engine, from start to stop."""
    async with (
        upstreams(settings, models) as connected,
        _embeddings(settings, models) as embeddings,
    ):
        yield Engine(
            models,
            connected,
            ledger,
            settings.request_deadline_seconds,
            observers,
            attempts=settings.upstream_attempts,
            breaker_failures=settings.breaker_failures,
            embeddings=embeddings,
        )


@asynccontextmanager
async def _embeddings(
    settings: Settings, models: ActiveCascade
) -> AsyncIterator[EmbeddingUpstream | None]:
    model = models.embedder
    if model is None:
        yield None
        return
    key = settings.key(model.key) if model.key else None
    async with wire.open_session() as session:
        endpoint = str(model.endpoint).rstrip("/")
        yield EmbeddingUpstream(session, model, endpoint, key.get_secret_value() if key else None)


def _connect(
    session: aiohttp.ClientSession, settings: Settings, model: Model, simulated: str
) -> Upstream:
    endpoint = simulated or str(model.endpoint)
    return connect(session, model, endpoint, settings.key(model.key) if model.key else None)
