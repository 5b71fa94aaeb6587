"""Run inside the image, in the service's network: ask it REQUESTS times, and say how it went.

Only what the image has may be imported.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter

import aiohttp

URL = "http://127.0.0.1:8000"
CLIENTS = 20


async def main(requests: int) -> None:
    headers = {"Authorization": f"Bearer {os.environ['KEY']}"}
    statuses: Counter[str] = Counter()
    async with aiohttp.ClientSession(URL, headers=headers) as session:
        await ready(session)
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                query = "What is AI?" if number % 4 else "Compare SQL and NoSQL databases"
                async with session.post("/api/query", json={"query": query}) as response:
                    answer = await response.json()
                    statuses[str(response.status)] += 1
                    assert response.status != 200 or answer["content"]

        started = time.monotonic()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        seconds = time.monotonic() - started
        async with session.get("/api/stats") as response:
            counted = (await response.json())["total_queries"]
        async with session.get("/playground/playground.js") as response:
            page = response.status
    told = {"statuses": statuses, "seconds": seconds, "counted": counted, "page": page}
    sys.stdout.write(json.dumps(told))


async def ready(session: aiohttp.ClientSession, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            async with session.get("/readiness") as response:
                if response.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.1)
    raise SystemExit(f"not ready within {seconds} seconds")


asyncio.run(main(int(sys.argv[1])))
