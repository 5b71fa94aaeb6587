"""A process that makes requests: `python -m tests.features.hitter URL WINDOW LIMIT REQUESTS`.

They are one client's, all at once; it prints how many were let through.
"""

import asyncio
import sys
from typing import cast

from app.features.rate_limit.counting import Rule, Window
from app.features.rate_limit.places import choose


async def main(url: str, window: str, limit: str, requests: str) -> None:
    """Hit."""
    place = choose(url, "", Rule(int(limit), cast(Window, window)))
    async with place.running():
        counts = await asyncio.gather(*(place.hit("ann") for _ in range(int(requests))))
    print(sum(count.allowed for count in counts))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
