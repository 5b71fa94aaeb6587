"""API keys in the ledger's Redis."""

import secrets
from collections.abc import AsyncIterator, Callable
from typing import cast

from app.ledger import scripts
from app.ledger.pump import Pump, Script
from app.ledger.store import EDITION

PAGE = 500
ADD, REMOVE = map(Script, (scripts.ADD_KEY, scripts.REMOVE_KEY))


class RedisKeys:
    """One hash."""

    def __init__(self, opened: Callable[[], Pump], key: str) -> None:
        self._opened = opened
        self._key = key

    async def edition(self) -> str | None:
        return cast(str | None, await self._opened().ask("HGET", self._key, EDITION))

    async def entries(self) -> AsyncIterator[str]:
        cursor = "0"
        while True:
            reply = await self._opened().ask("HSCAN", self._key, cursor, "COUNT", PAGE)
            number, found = cast(tuple[int, dict[str, str]], reply)
            for name, entry in found.items():
                if name != EDITION:
                    yield entry
            cursor = str(number)
            if cursor == "0":
                return

    async def add(self, name: str, entry: str) -> bool:
        return await self._run(ADD, name, entry)

    async def remove(self, name: str) -> bool:
        return await self._run(REMOVE, name, "")

    async def _run(self, script: Script, name: str, entry: str) -> bool:
        arguments = [EDITION, secrets.token_hex(8), name, entry]
        return await self._opened().run(script, [self._key], arguments) == 1
