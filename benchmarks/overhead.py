"""What do ledger, keys and limits cost for each request?

    python benchmarks/overhead.py [--rounds 7] [--requests 1000] [--redis URL]

Boots the template's service twice on a stub of both upstreams: with its books in SQLite (or in the
Redis of that URL), an API key, and requests counted beside the books; and with books in memory, no
key, and without the feature that counts. Asks both in turns, 32 at a time, questions whose draft
is accepted, and compares the processor time that each process took, threads included: what else
runs on the machine changes it little. Fails if the median of the rounds' ratios is too high.
"""

import asyncio
import hashlib
import os
import shutil
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import aiohttp
import stage
import typer
from memory import answer

AT_ONCE = 32
LIMIT = 1.25
KEY = "benchmark"
TICK = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Seconds, of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def cost(port: int, pid: int, requests: int) -> float:
    """Milliseconds of processor time for each of so many requests."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    headers = {"X-API-Key": KEY}
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", connector=connector, headers=headers
    ) as session:

        async def ask() -> None:
            async with session.post("/api/query", json={"query": "What is AI?"}) as response:
                if response.status != 200:
                    raise typer.BadParameter(f"{response.status} {await response.text()}")

        before = processor_time(pid)
        await asyncio.gather(*(ask() for _ in range(requests)))
        return 1000 * (processor_time(pid) - before) / requests


async def run(rounds: int, requests: int, redis: str | None) -> float:
    """The median of the rounds' ratios."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder)
        shutil.copytree(stage.TEMPLATE / "src", bare / "src")
        shutil.rmtree(bare / "src" / "app" / "features" / "rate_limit")
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        books = redis or f"sqlite:///{folder}/ledger.sqlite3"
        async with AsyncExitStack() as stack:
            endpoint = await stack.enter_async_context(stage.serving(answer))
            full = await stack.enter_async_context(
                stage.service(
                    stage.TEMPLATE, endpoint, LEDGER_URL=books, API_KEYS=f"ann:use:{digest}"
                )
            )
            without = await stack.enter_async_context(
                stage.service(bare, endpoint, LEDGER_URL="memory://")
            )
            return await compare(full, without, rounds, requests)


async def compare(
    full: tuple[int, int], without: tuple[int, int], rounds: int, requests: int
) -> float:
    for service in (full, without):
        await cost(*service, requests)
    ratios = []
    typer.echo("| round | with, ms | without, ms | ratio |\n|---:|---:|---:|---:|")
    for number in range(1, rounds + 1):
        first = await cost(*full, requests)
        second = await cost(*without, requests)
        ratios.append(first / second)
        typer.echo(f"| {number} | {first:.3f} | {second:.3f} | {ratios[-1]:.3f} |")
    return statistics.median(ratios)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    requests: Annotated[int, typer.Option(min=100, help="in each round, of each service")] = 1000,
    redis: Annotated[str | None, typer.Option(help="the URL of a Redis to keep books in")] = None,
) -> None:
    """Compare what a request costs with ledger, keys and limits, and without."""
    ratio = asyncio.run(run(rounds, requests, redis))
    typer.echo(f"\nThe median ratio: {ratio:.3f}; at most {LIMIT} is allowed.")
    if ratio > LIMIT:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
