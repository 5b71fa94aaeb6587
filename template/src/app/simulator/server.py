"""The simulator on a loopback socket of its own, in a thread, for as long as a block lasts."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.simulator.wire import SimulatorConfig, create_simulator


@contextmanager
def running(config: SimulatorConfig | None = None) -> Iterator[str]:
    """Run the simulator for the length of a `with` block; yields its base URL, ending in `/v1`."""
    # Without the explicit protocol asyncio leaves Nagle's algorithm on, 40 ms for each answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        serving = _serve(create_simulator(config), listener, stop)
        thread = threading.Thread(
            target=loop.run_until_complete, args=(serving,), name="simulator", daemon=True
        )
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(timeout=5)
            loop.close()


async def _serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    """uvicorn's protocol without its server, which has signals, log lines and patience to spare."""
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", proxy_headers=False)
    state = ServerState()

    def protocol() -> HttpToolsProtocol:
        made = HttpToolsProtocol(config, state, {})
        made.access_log = False  # as an option it would silence the whole process
        return made

    server = await asyncio.get_running_loop().create_server(protocol, sock=listener)
    await stop.wait()
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=1)
