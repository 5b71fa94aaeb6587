"""The keys that are accepted now: those of `API_KEYS`, and those that the ledger's place keeps.

A process looks at the place a little more often than once a second and whatever the load: no
request waits for it. While it is out of reach the keys that were last seen there stay valid.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from app.cascade.errors import LedgerUnavailable
from app.http import keys
from app.http.keys import ApiKey
from app.ledger.store import KeyStore

log = logging.getLogger(__name__)

PERIOD = 0.75
"""Seconds between looks, so that a change is known everywhere within one."""
NOBODY = "0" * 64


class Keyring:
    """The keys of one app. Without a store (`memory://`) they are those of `API_KEYS`."""

    def __init__(self, configured: Iterable[ApiKey], store: KeyStore | None = None) -> None:
        self.configured = tuple(configured)
        self.stored: tuple[ApiKey, ...] = ()
        self.known = store is None
        """Whether the store has been read; until then a key that is not found may be a good one."""
        self._store = store
        self._edition: str | None = None
        self._ever = bool(self.configured)
        self._reachable = True
        self._accept()

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """All of them, expired ones too."""
        return self.configured + self.stored

    @property
    def guarded(self) -> bool:
        """Whether there is a key, or was: revoking the last one does not open the service."""
        return self._ever

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From start to stop; the store must be running."""
        stopping = asyncio.Event()
        await self._try()
        looking = asyncio.create_task(self._look_often(stopping))
        try:
            yield
        finally:
            stopping.set()
            await looking

    async def look(self) -> None:
        """Read the store, if it has changed.

        Raises:
            LedgerUnavailable: it is out of reach; nothing has changed.
        """
        if self._store is None:
            return
        edition = await self._store.edition()
        if not self.known or edition != self._edition:
            found: dict[str, ApiKey] = {}
            unreadable = 0
            async for entry in self._store.entries():
                try:
                    key = keys.read(entry)
                except ValueError:
                    unreadable += 1
                else:
                    found[key.name] = key
            if unreadable:
                log.error("keys in the ledger that this version cannot read: %d", unreadable)
            self.stored = tuple(found.values())
            self._accept()
        # Read before the keys: what changed meanwhile is seen the next time.
        self._edition = edition
        self._ever = self._ever or edition is not None
        self.known = True

    def find(self, given: str) -> ApiKey | None:
        """The key that this is, expired or not."""
        digest = keys.digest(given)
        found = self._by_digest.get(digest)
        same = hmac.compare_digest(found.digest if found else NOBODY, digest)
        return found if same else None

    def _accept(self) -> None:
        # What the environment says of a key goes before what the store says.
        both = (*self.stored, *self.configured)
        self._by_digest = {key.digest: key for key in both}

    async def _look_often(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not stopping.is_set():
            again = loop.time() + PERIOD
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), again - loop.time())
            if not stopping.is_set():
                await self._try()

    async def _try(self) -> None:
        try:
            await self.look()
        except LedgerUnavailable as failure:
            if self._reachable:
                log.warning("the API keys are out of reach; the last known stay: %s", failure)
            self._reachable = False
        except Exception as failure:
            # Whatever it is, it must not be the last look.
            log.error("unexpected %s while reading the API keys", type(failure).__name__)
        else:
            if not self._reachable:
                log.warning("the API keys are within reach again")
            self._reachable = True
