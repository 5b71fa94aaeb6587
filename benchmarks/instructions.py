"""How many instructions does a request take, and what does it miss in the caches?

    python benchmarks/instructions.py [SERVICE…] [--chars 2000] [--at-once 1] [--requests 192]

Runs the template's service, or each rendered project given, under callgrind (valgrind must be
installed) and asks it questions whose draft is accepted. Two runs differ by a thousandth or two,
however busy the machine is: what one change buys can be seen. The caches are those of a core of
2026: 32 KB for code and 48 KB for data, then 1 MB. An instruction is no time: most time goes where
they miss.
"""

import asyncio
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import aiohttp
import contenders
import stage
import typer
import upstream
from aiohttp import web

CACHES = ("--I1=32768,8,64", "--D1=49152,12,64", "--LL=1048576,16,64")
EVENTS = {
    "instructions": ("Ir",),
    "past the first caches": ("I1mr", "D1mr", "D1mw"),
    "past the second": ("ILmr", "DLmr", "DLmw"),
}
DRAFT = upstream.whole("small", upstream.GOOD, 1).partition(b"\r\n\r\n")[2]


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=DRAFT, content_type="application/json")


async def counted(service: Path, chars: int, at_once: int, requests: int) -> list[float]:
    """The events of each request of a service, in the order of `EVENTS`."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        under = ("valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes", *CACHES)
        callgrind = (*under, "--instr-atstart=no", f"--callgrind-out-file={counts}")
        async with (
            stage.serving(answer) as endpoint,
            stage.service(service, endpoint, under=callgrind, LEDGER_URL="memory://") as (
                port,
                pid,
            ),
        ):
            await ask(port, chars, at_once, range(3 * at_once))
            switch(pid, "on")
            await ask(port, chars, at_once, range(3 * at_once, 3 * at_once + requests))
            switch(pid, "off")
        return [each / requests for each in totals(counts.read_text(encoding="utf-8"))]


async def ask(port: int, chars: int, at_once: int, numbers: range) -> None:
    connector = aiohttp.TCPConnector(limit=at_once)
    timeout = aiohttp.ClientTimeout(None)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", connector=connector, timeout=timeout
    ) as session:

        async def one(number: int) -> None:
            # Each has a word of its own.
            question = f"{contenders.prompt(chars, False)[:-4]}{number:04}"
            async with session.post("/api/query", json={"query": question}) as response:
                if response.status != 200 or not (await response.json())["draft_accepted"]:
                    raise typer.BadParameter(f"{response.status} {await response.text()}")

        await asyncio.gather(*map(one, numbers))


def switch(pid: int, way: str) -> None:
    subprocess.run(("callgrind_control", "-i", way, str(pid)), check=True, capture_output=True)


def totals(counts: str) -> list[int]:
    """What callgrind has counted, in the order of `EVENTS`."""
    lines = dict(line.split(": ", 1) for line in counts.splitlines() if ": " in line)
    found = dict(zip(lines["events"].split(), map(int, lines["totals"].split()), strict=False))
    return [sum(found[event] for event in events) for events in EVENTS.values()]


def main(
    services: Annotated[list[Path] | None, typer.Argument()] = None,
    chars: int = 100,
    at_once: int = 32,
    requests: int = 192,
) -> None:
    """Print the events of a request of each service."""
    typer.echo(f"| a request | {' | '.join(EVENTS)} |\n|---|{'---:|' * len(EVENTS)}")
    for service in services or [stage.TEMPLATE]:
        found = asyncio.run(counted(service.resolve(), chars, at_once, requests))
        typer.echo(f"| {service.name} | {' | '.join(f'{each:,.0f}' for each in found)} |")


if __name__ == "__main__":
    typer.run(main)
