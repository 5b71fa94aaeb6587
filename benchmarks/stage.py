"""A service on a stub of both upstreams, for the benchmarks."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import cascade
from aiohttp import web
from aiohttp.typedefs import Handler

TEMPLATE = Path(__file__).parents[1] / "template"


@asynccontextmanager
async def serving(answer: Handler, *, most_bytes: int = 2**20) -> AsyncIterator[str]:
    """The base URL of an upstream that answers so."""
    app = web.Application(client_max_size=most_bytes)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def service(
    directory: Path,
    endpoint: str,
    *,
    context: int = 100_000,
    under: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[tuple[int, int]]:
    """The service's port and process id; its models take `context` tokens, `under` runs it."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        file = Path(folder) / "cascade.toml"
        file.write_text(cascade.toml(endpoint, context), encoding="utf-8")
        own = directory / ".venv" / "bin" / "python"
        process = await asyncio.create_subprocess_exec(
            *under,
            str(own if own.exists() else sys.executable),
            *("-m", "app", "serve", "--port", str(port)),
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(directory / "src"),
                "CASCADE_FILE": str(file),
                "SIMULATOR": "off",
                "LOG_LEVEL": "WARNING",
                "DAILY_BUDGET": "1000000",
                "RATE_LIMIT": "1000000000",
                **settings,
            },
        )
        try:
            await ready(f"http://127.0.0.1:{port}")
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            try:
                async with session.get(f"{url}/readiness") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)
