"""A process that makes requests: `python -m tests.features.hitter URL WINDOW LIMIT REQUESTS`.

They are one client's, all at once; it prints how many were let through.
"""

import asyncio
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
    asyncio.run(main(*sys.argv[1:]))
