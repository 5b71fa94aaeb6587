"""For how long can one request hold up all the others?

    python benchmarks/loop_gap.py [SERVICE] [--limit 50]

Boots the service in the directory SERVICE (the template itself unless said otherwise) on a stub of
both upstreams. One client sends it text that is slow to analyse, as a query, as the messages of a
chat and as what the models say, at once or as a burst of small pieces. A second one, in a process
of its own, asks for `/liveness` every 2 ms and notes the longest gap between two answers, less
those 2 ms. Prints a table, another one of odd bodies, and fails if a gap exceeds the limit.
"""

import asyncio
import http.client
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import stage
import typer
from aiohttp import web
from memory import GOOD

SHAPES = {
    "combine with": "combine with ",
    "letters": "a",
    "base64": "QUJDRGVm+/09",
    "Chinese": "分析这个问题",
    "digits": "1",
    "sums": "1 + ",
    "prices": "$5 ",
    "braces": "{",
    "calls": "f(",
    "line ends": "\n",
    "indented lines": "\n x",
    "blanks": "x" + " " * 50,
    "choices": "\nA) ",
    "but": "but ",
    "first": "first ",
    "reasoning": "reasoning: ",
    "camel case": "AaBb",
    "snake case": "a_b ",
    "JSON": '"name": {"type": ',
    "tools": "- tool: function\n",
    "roles": "User: hi\nAssistant: yes\n",
    "LaTeX": "\\frac{1}{2}$ ",
    "prose": "The quick brown fox jumps over the lazy dog, and then it rests. ",
}
SIZES = (2_000, 20_000, 100_000)
CHAT = b'{"model": "cascade", "messages": [%s]}'
TURN = b'{"role": "user", "content": %s}'
BODIES = {
    "900 kB on one line": ("/api/query", b'{"query": "%s"}' % (b"x" * 900_000)),
    "900,000 levels": ("/api/query", b'{"query": %s' % (b"[" * 900_000)),
    "90,000 names": (
        "/api/query",
        b"{%s}" % b",".join(b'"%d":1' % number for number in range(90_000)),
    ),
    "a name twice, after 90,000": (
        "/api/query",
        b'{%s,"x":1,"x":1}' % b",".join(b'"%d":1' % number for number in range(90_000)),
    ),
    "900,000 digits": ("/api/query", b'{"query": "hi", "max_tokens": %s}' % (b"9" * 900_000)),
    "200 numbers of 4,300 digits": (
        "/api/query",
        b'{"query": [%s]}' % b",".join([b"9" * 4300] * 200),
    ),
    "10,000 messages": ("/v1/chat/completions", CHAT % b",".join([TURN % b'"hi"'] * 10_000)),
    "450,000 messages that are none": (
        "/v1/chat/completions",
        CHAT % b",".join([b"1"] * 450_000),
    ),
    "300,000 empty messages": ("/v1/chat/completions", CHAT % b",".join([b"{}"] * 300_000)),
    "450,000 parts that are none": (
        "/v1/chat/completions",
        CHAT % (TURN % b"[%s]" % b",".join([b"1"] * 450_000)),
    ),
}
TURNS = 11
TRIES = 3
DOUBTFUL = 25
"""Milliseconds, beyond which it is tried again."""
INTERVAL = 0.002
"""Seconds between two looks."""
PIECE = 4
"""Characters in each piece of a stream; tokens have about as many."""
PLACES = ("query", "history", "answer", "live stream", "buffered stream", "chat stream")


def text_of(shape: str, size: int) -> str:
    """So many characters of a shape; a letter at each end, since a service may strip blanks."""
    return f"a{(shape * (size // len(shape) + 1))[: size - 2]}z"


# --- the upstreams --------------------------------------------------------------------------------


@dataclass
class Upstream:
    """Both models. They report no usage, so that the service has to estimate it."""

    says: str = GOOD

    async def answer(self, request: web.Request) -> web.Response:
        if not (await request.json()).get("stream"):
            choice = {"message": {"content": self.says}, "finish_reason": "stop"}
            return web.json_response({"choices": [choice]})
        pieces = (self.says[at : at + PIECE] for at in range(0, len(self.says), PIECE))
        lines = [json.dumps({"choices": [{"delta": {"content": piece}}]}) for piece in pieces]
        text = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        return web.Response(text=text, content_type="text/event-stream")


# --- the second client ----------------------------------------------------------------------------


def watch(port: int, orders: Connection) -> None:
    """Ask for `/liveness` forever; an order begins a new measurement and returns the last, in s."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    longest, last = 0.0, time.perf_counter()
    while True:
        client.request("GET", "/liveness")
        client.getresponse().read()
        now = time.perf_counter()
        longest, last = max(longest, now - last - INTERVAL), now
        if orders.poll():
            orders.recv()
            orders.send(longest)
            longest = 0.0
        time.sleep(INTERVAL)


@contextmanager
def watching(port: int) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    process = context.Process(target=watch, args=(port, its), daemon=True)
    process.start()
    try:
        yield mine
    finally:
        process.terminate()
        process.join()


async def longest_gap(orders: Connection) -> float:
    """In ms, since it was last asked."""
    orders.send(None)
    return 1000 * await asyncio.to_thread(orders.recv)


# --- the first client -----------------------------------------------------------------------------


def turns_of(text: str, place: str) -> list[dict[str, str]]:
    """The text in turns; a question alone where the text is what the models say."""
    if place != "history":
        return [{"role": "user", "content": "What is AI?"}]
    step = len(text) // TURNS
    parts = [f"{text[at * step : (at + 1) * step]}z" for at in range(TURNS)]
    roles = ("user", "assistant")
    return [{"role": roles[at % 2], "content": part} for at, part in enumerate(parts)]


def request_of(place: str, text: str) -> tuple[str, dict[str, Any]]:
    """A path and a body."""
    if place in ("history", "chat stream"):
        chat = {"model": "cascade", "stream": place != "history"}
        return "/v1/chat/completions", {**chat, "messages": turns_of(text, place)}
    if place.endswith("stream"):
        return "/api/query/stream", {"query": "What is AI?", "mode": place.split()[0]}
    return "/api/query", {"query": text if place == "query" else "What is AI?"}


async def gap(
    session: aiohttp.ClientSession, orders: Connection, path: str, content: bytes
) -> tuple[int, float]:
    """The status of one request, and the longest gap beside it in ms."""
    await longest_gap(orders)
    headers = {"Content-Type": "application/json"}
    async with session.post(path, data=content, headers=headers) as response:
        said = await response.read()
    if response.status >= 500 or b'"type":"error"' in said.replace(b" ", b""):
        raise typer.BadParameter(f"{content[:50]!r}: {response.status} {said[:300]!r}")
    return response.status, await longest_gap(orders)


async def least_gap(
    session: aiohttp.ClientSession, orders: Connection, path: str, content: bytes
) -> tuple[int, float]:
    """The same; of some tries if it is long, since a busy machine lengthens it."""
    least = await gap(session, orders, path, content)
    for _ in range(TRIES - 1):
        if least[1] > DOUBTFUL:
            least = min(least, await gap(session, orders, path, content))
    return least


async def run(directory: Path, limit: float) -> bool:
    models = Upstream()
    async with (
        stage.serving(models.answer, most_bytes=10_000_000) as endpoint,
        stage.service(directory, endpoint, context=10_000_000, MAX_QUERY_CHARS="1000000") as (
            port,
            _,
        ),
    ):
        with watching(port) as orders:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                return await measure(session, models, orders, limit)


async def measure(
    session: aiohttp.ClientSession, models: Upstream, orders: Connection, limit: float
) -> bool:
    await longest_gap(orders)
    await asyncio.sleep(3)
    typer.echo(f"Longest gap in ms; {await longest_gap(orders):.1f} while idle.\n")
    typer.echo(f"| text | characters | {' | '.join(PLACES)} |")
    typer.echo(f"|---|{'---:|' * (len(PLACES) + 1)}")
    worst = 0.0
    for shape, piece in SHAPES.items():
        for size in SIZES:
            text = text_of(piece, size)
            row = []
            for place in PLACES:
                models.says = GOOD if place in ("query", "history") else text
                path, body = request_of(place, text)
                status, found = await least_gap(session, orders, path, json.dumps(body).encode())
                worst = max(worst, found)
                # A service may have been made without that path.
                row.append(f"{found:.1f}" if status == 200 else f"({status})")
            typer.echo(f"| {shape} | {size:,} | {' | '.join(row)} |")
    models.says = GOOD
    typer.echo("\n| body | status | longest gap |\n|---|---:|---:|")
    for name, (path, content) in BODIES.items():
        status, found = await least_gap(session, orders, path, content)
        worst = max(worst, found)
        typer.echo(f"| {name} | {status} | {found:.1f} |")
    typer.echo(f"\nThe longest of all: {worst:.1f} ms; at most {limit:g} are allowed.")
    return worst <= limit


def main(
    service: Annotated[Path, typer.Argument(help="directory of a service")] = stage.TEMPLATE,
    limit: Annotated[float, typer.Option(help="the longest gap allowed, in ms")] = 50,
) -> None:
    """Send a service text that is slow to analyse, and watch whether it answers others."""
    if not asyncio.run(run(service.resolve(), limit)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
