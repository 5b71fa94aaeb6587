"""Processes that make requests: `python -m tests.features.hitter NUMBER URL WINDOW LIMIT REQUESTS`.

They are one client's, all at once; each prints how many of its own were let through.
"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import cast

from app.cascade.errors import LedgerUnavailable
from app.features.rate_limit.counting import Count, Place, Rule, Window
from app.features.rate_limit.places import choose


async def hit(place: Place) -> Count:
    """Count one request, however long the others keep the place to themselves."""
    while True:
        with suppress(LedgerUnavailable):
            return await place.hit("ann")


async def main(url: str, window: str, limit: str, requests: str) -> None:
    """Hit."""
    place = choose(url, "", Rule(int(limit), cast(Window, window)))
    async with place.running():
        counts = await asyncio.gather(*(hit(place) for _ in range(int(requests))))
    print(sum(count.allowed for count in counts))  # noqa: T201


if __name__ == "__main__":
    # To import what they share takes them longer than what they do.
    for _ in range(int(sys.argv[1]) - 1):
        if not os.fork():
            break
    asyncio.run(main(*sys.argv[2:]))
