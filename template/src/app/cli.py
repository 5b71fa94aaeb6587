"""The command line: serve, ask, check, simulate, keys, usage and replay."""

import asyncio
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import date, datetime, timedelta
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from app import cli_keys, cli_replay, runtime
from app.cascade.errors import LedgerUnavailable, UpstreamFault
from app.cascade.types import Json, Query, Role
from app.http import drain, guard, logs
from app.http.keyring import Keyring
from app.http.protocol import BoundedProtocol
from app.ledger import Health, Ledger, export, opening
from app.main import alone, create_app
from app.settings import Settings, load_settings
from app.terminal import AsJson, explained, fail, tell
from app.values import value

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Run the service, ask it, and look after its keys and books.",
)
cli.add_typer(cli_keys.cli, name="keys")
cli.command()(cli_replay.replay)
usage_cli = typer.Typer(no_args_is_help=True, help="What was used and spent.")
cli.add_typer(usage_cli, name="usage")

DAY = ["%Y-%m-%d"]
Host = Annotated[str, typer.Option(envvar="HOST", help="Address to listen on.")]
Port = Annotated[int, typer.Option(envvar="PORT", min=0, max=65535, help="Port to listen on.")]


@cli.command()
def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(envvar="WORKERS", min=1, help="Processes.")] = 1,
    reload: Annotated[bool, typer.Option(help="Restart when the code changes.")] = False,
) -> None:
    """Run the service."""
    with explained():
        settings = load_settings(Settings)
        # Whatever stops a start stops it here, with a sentence, and not in each worker.
        app = create_app(settings)
        if workers > 1:
            opening.check_shared(settings)
            for feature in app.state.features:
                if feature.check_shared:
                    feature.check_shared()
        asyncio.run(_reach(app))
        guard.check_start(app.state.keyring, settings.environment, host)
    # uvicorn raises the signal again once it has drained: an orderly stop is a success.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, _exit)
    several = workers > 1 or reload
    with explained(), ExitStack() as stack:
        for feature in app.state.features:
            if feature.shared and several:
                stack.enter_context(feature.shared())
        uvicorn.run(
            "app.main:create_sole_app" if several else alone(app),
            factory=several,
            host=host,
            port=port,
            workers=workers,
            reload=reload,
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=settings.trusted_proxies,
            http=BoundedProtocol,
            timeout_graceful_shutdown=drain.LAST_WORDS,
            # A worker that starts on a busy machine is slow, not dead.
            timeout_worker_healthcheck=30,
        )


@cli.command()
def ask(
    query: Annotated[str, typer.Argument(help="The question.")],
    max_tokens: Annotated[int, typer.Option(min=1, max=4000)] = 200,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    direct: Annotated[bool, typer.Option(help="Ask the verifier at once.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask the cascade and watch it answer."""
    if not query.strip():
        fail("The question is empty.")
    asked = Query.ask(
        query.strip(), max_tokens=max_tokens, temperature=temperature, force_direct=direct
    )
    # Whoever serves draws nothing, and starts sooner without rich.
    from app import cli_ask

    with explained():
        asyncio.run(cli_ask.ask(load_settings(Settings), asked, as_json))


@cli.command()
def check(as_json: AsJson = False) -> None:
    """Check settings, cascade.toml, keys and upstreams, without spending a token."""
    with explained():
        settings = load_settings(Settings)
        ok = asyncio.run(_check(settings, create_app(settings), as_json))
    if not ok:
        raise typer.Exit(1)


@cli.command()
def simulate(host: Host = "127.0.0.1", port: Port = 8001) -> None:
    """Run the simulator alone: an OpenAI-compatible server with two models that know little."""
    from app import simulator

    logs.configure("INFO")
    uvicorn.run(
        simulator.create_simulator(), host=host, port=port, log_config=None, access_log=False
    )


@usage_cli.callback()
def usage() -> None:
    """What was used and spent, as the ledger has it."""


@usage_cli.command(name="export")
def export_usage(
    format: Annotated[export.Format, typer.Option(help="CSV, or JSON Lines.")] = "csv",
    by: Annotated[export.By, typer.Option(help="A line for each key and day, or query.")] = "day",
    first: Annotated[
        datetime | None, typer.Option("--from", formats=DAY, help="30 days ago if not given.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=DAY, help="Today if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As --format jsonl.")] = False,
) -> None:
    """Print usage by API key and day."""
    with explained():
        settings = load_settings(Settings)
        opening.check_shared(settings)
        ledger = opening.choose(settings)
        end = last.date() if last else ledger.today()
        begin = first.date() if first else end - timedelta(days=30)
        if begin > end:
            raise typer.BadParameter("--from is after --to")
        asyncio.run(_export(ledger, begin, end, "jsonl" if as_json else format, by))


async def _export(
    ledger: Ledger, first: date, last: date, format: export.Format, by: export.By
) -> None:
    async with ledger.running():
        async for line in export.lines(ledger, first, last, format, by):
            typer.echo(line)


async def _reach(app: FastAPI) -> Health:
    """How the ledger is; the keyring knows its keys then, if they are within reach.

    Raises:
        ConfigurationError: it is there, and cannot be used.
    """
    ledger: Ledger = app.state.ledger
    keyring: Keyring = app.state.keyring
    async with ledger.running():
        with suppress(LedgerUnavailable):
            await keyring.look()
        return await ledger.health()


@value
class _Model:
    """A model that was looked for, and what went wrong."""

    name: str
    provider: str
    fault: str | None


async def _check(settings: Settings, app: FastAPI, as_json: bool) -> bool:
    logs.configure("ERROR")
    models = runtime.configure(settings)
    health = await _reach(app)
    guard.check_start(app.state.keyring, settings.environment)
    async with runtime.upstreams(settings, models) as connected:
        roles: tuple[Role, ...] = ("drafter", "verifier")
        found: dict[Role, _Model] = {}
        for role in roles:
            fault = None
            try:
                async with asyncio.timeout(10):
                    await connected[role].reach()
            except (UpstreamFault, TimeoutError) as failure:
                fault = str(failure) or "timeout"
            model = models.model(role)
            found[role] = _Model(model.name, model.provider, fault)
    told: dict[str, Json] = {
        "environment": settings.environment,
        "strictness": models.strictness,
        "ledger": {"kind": health.kind, "reachable": health.reachable},
        **{role: asdict(seen) for role, seen in found.items()},
    }
    if as_json:
        tell(told)
    else:
        typer.echo(f"settings: fine, for {settings.environment}")
        typer.echo(f"{settings.cascade_file}: fine, {models.strictness}")
        typer.echo(f"ledger ({health.kind}): {'' if health.reachable else 'un'}reachable")
        for role, seen in found.items():
            typer.echo(f"{role} {seen.name} ({seen.provider}): {seen.fault or 'reachable'}")
    return health.reachable and not any(seen.fault for seen in found.values())


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(0)
