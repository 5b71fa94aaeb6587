"""How many instructions does a request take, and what does it miss in the caches?

    python benchmarks/instructions.py [SERVICE…] [--chars 2000] [--at-once 1] [--requests 192]
    python benchmarks/instructions.py [SERVICE…] --pieces

Runs the template's service, or each rendered project given, under callgrind (valgrind must be
installed) and asks it questions whose draft is accepted; with `--pieces`, for streams of a few
pieces and of many, and says what each piece more takes. Two runs differ by a thousandth or two,
however busy the machine is: what one change buys can be seen. The caches are those of a core of
2026: 32 KB for code and 48 KB for data, then 1 MB. An instruction is no time: most time goes where
they miss.
"""

import asyncio
import subprocess
import tempfile
from collections import defaultdict
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Protocol

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
FEW, MANY = 10, 60
"""Pieces of a stream."""


class Job(Protocol):
    """What is asked, and what answers upstream."""

    async def answer(self, request: web.Request) -> web.StreamResponse: ...

    async def ask(self, session: aiohttp.ClientSession, question: str) -> None: ...


class Whole:
    """Answers at once."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(body=DRAFT, content_type="application/json")

    async def ask(self, session: aiohttp.ClientSession, question: str) -> None:
        async with session.post("/api/query", json={"query": question}) as response:
            if response.status != 200 or not (await response.json())["draft_accepted"]:
                raise typer.BadParameter(f"{response.status} {await response.text()}")


class Streamed:
    """Streams whose next piece is said when the client has the one before: none come together."""

    def __init__(self, pieces: int) -> None:
        told = (unframed(piece) for piece in cycle(upstream.PIECES["small", 1]))
        self.pieces = [*islice(told, pieces)]
        self.heard: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        heard = self.heard[(await request.json())["messages"][-1]["content"]]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
            await heard.wait()
            heard.clear()
        await response.write(unframed(upstream.end("small", len(self.pieces))))
        return response

    async def ask(self, session: aiohttp.ClientSession, question: str) -> None:
        last = b""
        async with session.post("/api/query/stream", json={"query": question}) as response:
            async for last in response.content.iter_any():
                if upstream.MARK.encode() in last:
                    self.heard[question].set()
        if response.status != 200 or b'"draft_accepted":true' not in last:
            raise typer.BadParameter(f"{response.status} {last.decode()}")


def unframed(chunks: bytes) -> bytes:
    """What HTTP's chunks hold."""
    return b"".join(chunks.split(b"\r\n")[1::2])


async def counted(service: Path, chars: int, at_once: int, requests: int, job: Job) -> list[float]:
    """The events of each request of a service, in the order of `EVENTS`."""
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder) / "counts"
        under = ("valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes", *CACHES)
        callgrind = (*under, "--instr-atstart=no", f"--callgrind-out-file={counts}")
        async with (
            stage.serving(job.answer) as endpoint,
            stage.service(service, endpoint, under=callgrind, LEDGER_URL="memory://") as (
                port,
                pid,
            ),
        ):
            await ask(job, port, chars, at_once, range(3 * at_once))
            switch(pid, "on")
            await ask(job, port, chars, at_once, range(3 * at_once, 3 * at_once + requests))
            switch(pid, "off")
        return [each / requests for each in totals(counts.read_text(encoding="utf-8"))]


async def ask(job: Job, port: int, chars: int, at_once: int, numbers: range) -> None:
    connector = aiohttp.TCPConnector(limit=at_once)
    timeout = aiohttp.ClientTimeout(None)
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", connector=connector, timeout=timeout
    ) as session:
        # Each has a word of its own.
        prompt = contenders.prompt(chars, False)[:-4]
        await asyncio.gather(*(job.ask(session, f"{prompt}{number:04}") for number in numbers))


async def of_a_piece(service: Path, chars: int, at_once: int, requests: int) -> list[float]:
    """The events of each piece of a stream."""
    few, many = [
        await counted(service, chars, at_once, requests, Streamed(pieces)) for pieces in (FEW, MANY)
    ]
    return [(more - less) / (MANY - FEW) for less, more in zip(few, many, strict=True)]


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
    pieces: bool = False,
) -> None:
    """Print the events of a request of each service, or of a piece of a stream."""
    what = "a piece" if pieces else "a request"
    typer.echo(f"| {what} | {' | '.join(EVENTS)} |\n|---|{'---:|' * len(EVENTS)}")
    for service in services or [stage.TEMPLATE]:
        asked = service.resolve(), chars, at_once, requests
        found = asyncio.run(of_a_piece(*asked) if pieces else counted(*asked, Whole()))
        typer.echo(f"| {service.name} | {' | '.join(f'{each:,.0f}' for each in found)} |")


if __name__ == "__main__":
    typer.run(main)
