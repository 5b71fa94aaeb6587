"""How many queries are being answered, and whether more are taken."""

import asyncio

from app.cascade.errors import NotReady


class Flights:
    """Entered for as long as a query is in flight: `with flights:`."""

    def __init__(self) -> None:
        self.count = 0
        self.refusing = False
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        """Raises NotReady where no more are taken."""
        if self.refusing:
            raise NotReady
        self.count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if not self.count:
            self._none.set()

    async def ended(self) -> None:
        """Return once none is in flight."""
        await self._none.wait()
