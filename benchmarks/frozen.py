"""What becomes of the service while its Redis says nothing?

    python benchmarks/frozen.py [--server redis-server] [--seconds 10] [--limit 50]

Boots the template's service with its books and its counts of requests in a Redis of its own, on a
stub of both upstreams, and keeps 20 clients asking. Freezes Redis (SIGSTOP) for so many seconds,
once with LEDGER_ON_FAILURE=closed and once with open, and prints the statuses, the longest gap
between two answers of `/liveness` seen from a process of its own, and whether the books have every
answered query once when Redis is back. Fails if a gap exceeds the limit, on a 500, or if the books
do not balance.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import aiohttp
import stage
import typer
from loop_gap import longest_gap, watching
from memory import answer

CLIENTS = 20
PAUSE = 0.05
"""Seconds; without it the clients themselves would take the processors away."""


@contextmanager
def redis(server: str, folder: str) -> Iterator[tuple[str, int]]:
    """Its URL and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        yield f"redis://127.0.0.1:{port}/0", process.pid
        process.kill()


async def ask(session: aiohttp.ClientSession, until: asyncio.Event, seen: Counter[int]) -> None:
    while not until.is_set():
        async with session.post("/api/query", json={"query": "What is AI?"}) as response:
            await response.read()
            seen[response.status] += 1
        await asyncio.sleep(PAUSE)


async def run(
    server: str, seconds: float, on_failure: str
) -> tuple[Counter[int], float, float, bool]:
    """Statuses, the longest gaps before and after in ms, and whether the books balance."""
    seen: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder, redis(server, folder) as (url, pid):
        settings = {"LEDGER_URL": url, "LEDGER_ON_FAILURE": on_failure}
        async with (
            stage.serving(answer) as endpoint,
            stage.service(stage.TEMPLATE, endpoint, **settings) as (port, _),
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        ):
            with watching(port) as orders:
                done = asyncio.Event()
                clients = [asyncio.create_task(ask(session, done, seen)) for _ in range(CLIENTS)]
                await asyncio.sleep(3)
                before = await longest_gap(orders)
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(3)
                gap = await longest_gap(orders)
                done.set()
                await asyncio.gather(*clients)
            return seen, before, gap, await balanced(session, seen[200])


async def balanced(session: aiohttp.ClientSession, answered: int) -> bool:
    """Whether the books come to have as many queries as were answered."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        async with session.get("/api/stats") as response:
            if response.status == 200 and (await response.json())["total_queries"] == answered:
                return True
        await asyncio.sleep(0.5)
    return False


def main(
    server: Annotated[str, typer.Option(help="the program")] = "redis-server",
    seconds: Annotated[float, typer.Option(min=1)] = 10,
    limit: Annotated[float, typer.Option(help="the longest gap allowed, in ms")] = 50,
) -> None:
    """Freeze Redis under load."""
    if not shutil.which(server):
        raise typer.BadParameter(f"{server} is not on PATH")
    fine = True
    typer.echo("| on failure | statuses | longest gap before, ms | after | balanced |")
    typer.echo("|---|---|---:|---:|---|")
    for choice in ("closed", "open"):
        seen, before, gap, right = asyncio.run(run(server, seconds, choice))
        said = ", ".join(f"{count} of {status}" for status, count in sorted(seen.items()))
        typer.echo(f"| {choice} | {said} | {before:.1f} | {gap:.1f} | {'yes' if right else 'no'} |")
        fine = fine and gap <= limit and 500 not in seen and right
    if not fine:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)
