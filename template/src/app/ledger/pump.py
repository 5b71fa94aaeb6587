"""One connection to Redis for one process: what is asked together is sent together.

A thousand queries at once are a few round trips, and none waits for a connection. Callers await
futures, so that a caller who is cancelled leaves the connection in order.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import hiredis
import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError

from app.cascade.errors import ConfigurationError, LedgerUnavailable
from app.values import value

SECONDS = 0.5
"""For anything that Redis is asked; it takes a thousandth of that when it is well."""
LAST_LOOK = 0.05
"""After them, in seconds too."""
TOGETHER = 256
Argument = str | int


class Script:
    """A script of Lua, known to Redis by its digest."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@value
class Command:
    """What Redis is asked, and where the reply is awaited."""

    words: tuple[Argument, ...]
    future: asyncio.Future[object]
    script: Script | None = None

    def sent(self, *, known: bool) -> tuple[Argument, ...]:
        if self.script is None:
            return self.words
        head = ("EVALSHA", self.script.digest) if known else ("EVAL", self.script.text)
        return (*head, *self.words)


class Pump:
    """The way to Redis while it is open."""

    def __init__(self, redis: client.Redis) -> None:
        self._redis = redis
        self._commands: list[Command] = []
        self._wanted = asyncio.Event()
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Pump"]:
        """From start to stop; Redis need not be there."""
        redis = connect(url)
        pump = cls(redis)
        running = asyncio.create_task(pump._run())
        try:
            yield pump
        finally:
            pump._closing = True
            pump._wanted.set()
            await running
            await redis.aclose()

    async def ask(self, *words: Argument) -> object:
        """The reply to a command.

        Raises:
            LedgerUnavailable: none came in time, or an error.
        """
        return await self._put(Command(words, asyncio.get_running_loop().create_future()))

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> object:
        """The result of a script; it may be run twice.

        Raises:
            LedgerUnavailable: none came in time, or an error.
        """
        words = (len(keys), *keys, *arguments)
        return await self._put(Command(words, asyncio.get_running_loop().create_future(), script))

    async def _put(self, command: Command) -> object:
        self._commands.append(command)
        self._wanted.set()
        return await command.future

    async def _run(self) -> None:
        while not self._closing or self._commands:
            await self._wanted.wait()
            self._wanted.clear()
            while self._commands:
                batch, self._commands = self._commands[:TOGETHER], self._commands[TOGETHER:]
                try:
                    replies = await self._send(batch)
                except Exception as failure:
                    # Nobody is left waiting; whoever came meanwhile would wait as long for this.
                    batch, self._commands = batch + self._commands, []
                    replies = [failure] * len(batch)
                for command, reply in zip(batch, replies, strict=True):
                    _settle(command.future, reply)

    async def _send(self, batch: Sequence[Command]) -> list[object]:
        async with _patience():
            replies = await self._execute(batch, known=True)
            if any(isinstance(reply, NoScriptError) for reply in replies):
                replies = await self._execute(batch, known=False)
            return replies

    async def _execute(self, batch: Sequence[Command], *, known: bool) -> list[object]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in batch:
            pipeline.execute_command(*command.sent(known=known))
        replies: list[object] = await pipeline.execute(raise_on_error=False)
        return replies


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """A limit for what Redis is asked, reached only after one more look at what has come.

    Where this process did not run for a while, the reply and the end of the limit are there in the
    same turn of the loop, and Redis was well.

    Raises:
        TimeoutError: Redis has not replied.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(SECONDS, lambda: limit.reschedule(loop.time() + LAST_LOOK))
        try:
            yield
        finally:
            timer.cancel()


def check_url(setting: str, url: str) -> None:
    """Look at the URL that a variable holds.

    Raises:
        ConfigurationError: it is none of Redis. It is not repeated: it may hold a password.
    """
    try:
        number = urlsplit(url).path.strip("/")
        if number and not number.isdecimal():
            raise ValueError
        connect(url)
    except ValueError:
        raise ConfigurationError(
            f"{setting}: this is no URL of Redis; write redis://user:password@host:port/number"
        ) from None


def prefix(name: str) -> str:
    """What all keys of a service begin with; the braces keep them in one slot of a cluster."""
    return "{" + name + "}:"


def connect(url: str) -> client.Redis:
    """A client for the URL, which connects when it is first used.

    Raises:
        ValueError: it is none of Redis.
    """
    # Once more after a connection that Redis has closed, but never after a time-out.
    retry = Retry(NoBackoff(), 1, supported_errors=(Disconnected,))
    redis = client.Redis.from_url(
        url,
        # One for all that is asked together, in `_send`, and not one for each reply.
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=retry,
        decode_responses=True,
    )
    pool = redis.connection_pool
    pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
    return redis


class _Packing:
    """redis-py has hiredis read replies, and puts commands together itself, word by word."""

    def pack_command(self, *words: Argument) -> list[bytes]:
        # Its stub takes a tuple of one word.
        return [hiredis.pack_command(words)]  # type: ignore[arg-type]


def _settle(future: asyncio.Future[object], reply: object) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(LedgerUnavailable(type(reply).__name__))
    else:
        future.set_result(reply)
