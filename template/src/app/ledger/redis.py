"""Books in Redis: shared by replicas. They are as lasting as Redis is told to be (`appendonly`)."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

from pydantic_core import to_json

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.ledger import pump, scripts
from app.ledger.pump import Pump, Script
from app.ledger.redis_keys import RedisKeys
from app.ledger.store import Hold, Posting, Refusal, Scope

log = logging.getLogger(__name__)

VERSION = 1
DAY_SECONDS = 400 * 86_400
PAGE = 500
HOLD, RELEASE, POST, CLEAR = map(
    Script, (scripts.HOLD, scripts.RELEASE, scripts.POST, scripts.CLEAR)
)


class RedisStore:
    """Redis 6.2 or newer, or what speaks like it. All keys begin with `{name}` and so share a slot.

    Two services, or two environments of one, need different names or database numbers.
    """

    kind = "redis"

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._holds = [self._key(part) for part in ("held", "holds", "expiries", "expired")]
        self._pump: Pump | None = None
        self.keys = RedisKeys(self._opened, self._key("keys"))

    def check(self) -> None:
        pump.check_url("LEDGER_URL", self._url)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with Pump.open(self._url) as opened:
            self._pump = opened
            try:
                await self._check_version()
                yield
            finally:
                self._pump = None

    async def hold(self, hold: Hold) -> Refusal | None:
        reply = await self._opened().run(
            HOLD,
            [*self._holds, self._key(f"day:{hold.day}")],
            [
                hold.id,
                hold.account,
                hold.units,
                int(hold.seconds * 1000),
                hold.budget,
                "" if hold.account_budget is None else hold.account_budget,
            ],
        )
        verdict, remaining = cast(list[str], reply)
        return None if verdict == "held" else Refusal(cast(Scope, verdict), int(remaining))

    async def release(self, hold_id: str) -> None:
        await self._opened().run(RELEASE, self._holds, [hold_id])

    async def post(self, posting: Posting) -> bool:
        names = ("totals", f"day:{posting.day}", "records", f"unbacked:{posting.id}")
        reply = await self._opened().run(
            POST,
            [*self._holds, *map(self._key, names)],
            [
                posting.id,
                posting.record,
                int(posting.unbacked),
                DAY_SECONDS,
                _in_one(posting.totals),
                _in_one(posting.usage),
            ],
        )
        return reply == 1

    async def totals(self) -> dict[str, int]:
        return await self._sums("totals")

    async def day(self, day: str) -> dict[str, int]:
        return await self._sums(f"day:{day}")

    async def clear(self, totals: Mapping[str, int]) -> None:
        await self._opened().run(CLEAR, [self._key("totals")], _pairs(totals))

    async def records(self, first_id: str, end_id: str) -> AsyncIterator[str]:
        begin = f"[{first_id}"
        while found := await self._page(begin, f"({end_id}"):
            for member in found:
                yield member[member.index("{") :]
            begin = f"({found[-1]}"

    async def forget(self, end_id: str) -> None:
        # A few at a time: Redis does nothing else meanwhile.
        while found := await self._page("-", f"({end_id}"):
            await self._opened().ask("ZREM", self._key("records"), *found)

    async def ping(self) -> None:
        await self._opened().ask("SET", self._key("ping"), 1)

    async def _sums(self, name: str) -> dict[str, int]:
        reply = await self._opened().ask("HGETALL", self._key(name))
        return {field: int(value) for field, value in cast(dict[str, str], reply).items()}

    async def _page(self, begin: str, end: str) -> list[str]:
        key = self._key("records")
        reply = await self._opened().ask("ZRANGEBYLEX", key, begin, end, "LIMIT", 0, PAGE)
        return cast(list[str], reply)

    async def _check_version(self) -> None:
        key = self._key("version")
        try:
            await self._opened().ask("SET", key, VERSION, "NX")
            version = int(cast(str, await self._opened().ask("GET", key)))
        except LedgerUnavailable as failure:
            # A replica may start while Redis is away; LEDGER_ON_FAILURE says what it may do then.
            log.warning("the ledger is out of reach: %s", failure)
            return
        if version > VERSION:
            raise ConfigurationError(
                "LEDGER_URL: the ledger is from a newer version of this service"
            )

    def _opened(self) -> Pump:
        if self._pump is None:
            raise LedgerUnavailable("not open")
        return self._pump

    def _key(self, name: str) -> str:
        return f"{pump.prefix(self._name)}ledger:{name}"


def _in_one(sums: Mapping[str, int]) -> str:
    """Sums as JSON, numbers as text: for each word that Redis is sent, its client takes a while."""
    return to_json({name: str(number) for name, number in sums.items()}).decode()


def _pairs(sums: Mapping[str, int]) -> list[str | int]:
    return [part for pair in sums.items() for part in pair]
