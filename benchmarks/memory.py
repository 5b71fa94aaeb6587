"""Does a service's memory grow with the number of requests?

    python benchmarks/memory.py [SERVICE] [--requests 20000]

Boots the service in the directory SERVICE (the template itself unless said otherwise) on a stub of
both upstreams, sends it requests of every kind, and prints its resident memory on the way. Fails if
the second half of the requests adds more than a megabyte.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import stage
import typer
from aiohttp import web

LIMIT = 1.0
"""MB by which memory may grow in the second half of the requests."""
GOOD = "AI is the study and engineering of machines that learn, reason and perceive."
POOR = "I don't know, maybe."

Kind = tuple[str, str, dict[str, Any]]


def kinds() -> list[Kind]:
    """A name, a path and a body for every kind of request."""
    plain: list[tuple[str, dict[str, Any]]] = [
        ("accepted", {"query": "What is AI?"}),
        ("rejected", {"query": "poor: What is AI?"}),
        ("direct", {"query": "What is AI?", "force_direct": True}),
        ("failing", {"query": "fail: What is AI?"}),
        ("long", {"query": "What is AI? " + "very " * 350}),
        ("bad field", {"query": "hi", "max_tokens": 0}),
        ("too long", {"query": "x" * 2001}),
        ("unknown field", {"query": "hi", "x": 1}),
    ]
    chat: list[tuple[str, dict[str, Any]]] = []
    for name, query in (("accepted", "What is AI?"), ("rejected", "poor: What is AI?")):
        body = {"model": "cascade", "messages": [{"role": "user", "content": query}]}
        chat += [(f"chat {name}", body), (f"chat {name}, streamed", {**body, "stream": True})]
    return [
        *((name, "/api/query", body) for name, body in plain),
        *((f"{name}, streamed", "/api/query/stream", body) for name, body in plain),
        *((name, "/v1/chat/completions", body) for name, body in chat),
        ("left", "/api/query", {"query": "slow: What is AI?"}),
        ("left, streamed", "/api/query/stream", {"query": "slow: What is AI?"}),
        ("no such path", "/nowhere", {}),
    ]


# --- the upstreams --------------------------------------------------------------------------------


async def answer(request: web.Request) -> web.StreamResponse:
    """Both models; what is asked says how they behave."""
    body = await request.json()
    asked = body["messages"][-1]["content"]
    if asked.startswith("fail"):
        return web.json_response({"error": "stub"}, status=500)
    if asked.startswith("slow"):
        await asyncio.sleep(1)
    poor = asked.startswith("poor") and body["model"] == "small"
    text = POOR if poor else GOOD
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    if not body.get("stream"):
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage})
    deltas = [{"choices": [{"delta": {"content": f"{word} "}}]} for word in text.split()]
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage}
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in [*deltas, end])
    return web.Response(text=f"{lines}data: [DONE]\n\n", content_type="text/event-stream")


# --- the service ----------------------------------------------------------------------------------


def resident(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kilobytes) / 1024


# --- the requests ---------------------------------------------------------------------------------


async def send(session: aiohttp.ClientSession, url: str, kind: Kind) -> int:
    """The status, 0 for a client that has left."""
    name, path, body = kind
    patience = aiohttp.ClientTimeout(total=0.05 if name.startswith("left") else 30)
    try:
        async with session.post(f"{url}{path}", json=body, timeout=patience) as response:
            await response.read()
            return response.status
    except TimeoutError:
        return 0


async def run(directory: Path, requests: int, clients: int, steps: int) -> None:
    async with (
        stage.serving(answer) as endpoint,
        stage.service(
            directory, endpoint, UPSTREAM_ATTEMPTS="1", BREAKER_FAILURES="1000000000"
        ) as (port, pid),
    ):
        await measure(f"http://127.0.0.1:{port}", pid, requests, clients, steps)


async def measure(url: str, pid: int, requests: int, clients: int, steps: int) -> None:
    every, chance = kinds(), random.Random(3)  # noqa: S311 -- the same requests each time
    order = [every[chance.randrange(len(every))] for _ in range(requests)]
    seen: Counter[tuple[str, int]] = Counter()
    typer.echo(f"{'start':>9}: {resident(pid):7.2f} MB")
    sizes = []
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client(left: Iterator[Kind]) -> None:
            for kind in left:
                seen[kind[0], await send(session, url, kind)] += 1

        for step in range(steps):
            part = order[step * requests // steps : (step + 1) * requests // steps]
            left, started = iter(part), time.perf_counter()
            await asyncio.gather(*(client(left) for _ in range(clients)))
            rate = len(part) / (time.perf_counter() - started)
            sizes.append(resident(pid))
            typer.echo(f"{seen.total():>9}: {sizes[-1]:7.2f} MB  {rate:6.0f} requests/s")
    for (name, status), count in sorted(seen.items()):
        typer.echo(f"{count:>9}  {status or '-':>3}  {name}")
    half = sizes[len(sizes) // 2 - 1]
    growth = sizes[-1] - half
    typer.echo(f"second half: {growth:+.2f} MB; at most {LIMIT} are allowed.")
    if growth > LIMIT:
        raise typer.Exit(1)


def main(
    service: Annotated[Path, typer.Argument(help="directory of a service")] = stage.TEMPLATE,
    requests: int = 20_000,
    clients: int = 20,
    steps: Annotated[int, typer.Option(help="how often to look; even")] = 10,
) -> None:
    """Send a service many requests of every kind, and watch its memory."""
    asyncio.run(run(service.resolve(), requests, clients, steps))


if __name__ == "__main__":
    typer.run(main)
