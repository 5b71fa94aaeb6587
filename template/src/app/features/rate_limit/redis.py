"""Counts in Redis: shared by replicas, by the clock of Redis."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from app.cascade.errors import LedgerUnavailable
from app.features.rate_limit.counting import Count, Rule
from app.ledger import pump
from app.ledger.pump import Pump, Script

FIXED = Script("""
local limit, milliseconds = tonumber(ARGV[1]), tonumber(ARGV[2])
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
local allowed = 0
if count < limit then
  allowed = 1
  count = redis.call('INCR', KEYS[1])
end
if redis.call('PTTL', KEYS[1]) < 0 then
  redis.call('PEXPIRE', KEYS[1], milliseconds)
end
return {allowed, math.max(0, limit - count), redis.call('PTTL', KEYS[1])}
""")
# Times are of microseconds, written out: Lua would print them with an exponent.
SLIDING = Script("""
local limit, milliseconds, id = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local begin = now - milliseconds * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', begin))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
local count = redis.call('ZCARD', KEYS[1])
local allowed = 0
if redis.call('ZSCORE', KEYS[1], id) then
  allowed = 1
elseif count < limit then
  allowed = 1
  count = count + 1
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), id)
  redis.call('PEXPIRE', KEYS[1], milliseconds)
end
local oldest = tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
return {allowed, math.max(0, limit - count), math.ceil((oldest - begin) / 1000)}
""")


class RedisPlace:
    """Redis 6.2 or newer, or what speaks like it; a connection of its own, in batches."""

    kind = "redis"

    def __init__(self, url: str, name: str, rule: Rule) -> None:
        self._url = url
        self._prefix = f"{pump.prefix(name)}requests:{rule.window}:"
        self._rule = rule
        self._pump: Pump | None = None

    def check(self) -> None:
        pump.check_url("RATE_LIMIT_STORAGE", self._url)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with Pump.open(self._url) as opened:
            self._pump = opened
            try:
                # The first request need not wait for the connection, too.
                with suppress(LedgerUnavailable):
                    await self.ping()
                yield
            finally:
                self._pump = None

    async def hit(self, client: str, limit: int | None = None) -> Count:
        rule = self._rule.with_limit(limit)
        script = FIXED if rule.window == "fixed" else SLIDING
        # A script may be run twice; the id tells a request from its repetition.
        arguments = (rule.limit, rule.seconds * 1000, uuid.uuid4().hex)
        reply = await self._opened().run(script, [self._prefix + client], arguments)
        allowed, remaining, milliseconds = cast(list[int], reply)
        return Count(allowed == 1, remaining, milliseconds / 1000)

    async def ping(self) -> None:
        await self._opened().ask("SET", self._prefix, 1, "PX", 1000)

    def _opened(self) -> Pump:
        if self._pump is None:
            raise LedgerUnavailable("not open")
        return self._pump
