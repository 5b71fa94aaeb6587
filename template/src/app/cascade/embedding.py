"""Vectors of texts: one model and no cascade, with the budget, retries and books of a query."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from decimal import Decimal

from app.cascade import pricing
from app.cascade.errors import (
    CascadeError,
    ContextExceeded,
    DeadlineExceeded,
    NotReady,
    UpstreamFailed,
    UpstreamFault,
)
from app.cascade.resilience import Breaker, Retries
from app.cascade.types import Embedded, Embedding, Outcome, Usage, Vector
from app.cascade.upstream.embeddings import EmbeddingUpstream
from app.ledger import Account, Entry, Ledger

Limited = Callable[[float], AbstractAsyncContextManager[None]]
NOTHING = Usage(0, 0)


class Embedder:
    """Asks the model for embeddings. `deadline` is in seconds."""

    def __init__(
        self,
        upstream: EmbeddingUpstream,
        ledger: Ledger,
        deadline: float,
        observers: Sequence[Callable[[Entry], None]],
        retries: Retries,
        breaker: Breaker,
    ) -> None:
        self.model = upstream.model
        self._upstream = upstream
        self._ledger = ledger
        self._deadline = deadline
        self._observers = observers
        self._retries = retries
        self._breaker = breaker

    async def embed(self, asked: Embedding, account: Account, limited: Limited) -> Embedded:
        """The vectors; the account pays. `limited` raises TimeoutError when time is up.

        Raises:
            CascadeError: as of a query.
        """
        name, context = self.model.name, self.model.context
        if max(map(pricing.tokens, asked.texts)) > context:
            raise ContextExceeded(name, context)
        reservation = await self._ledger.reserve(self._worst_case(asked), account)
        began = time.perf_counter()
        deadline = min(self._deadline, asked.deadline or self._deadline)
        outcome: Outcome = "failed"
        usage = NOTHING
        try:
            async with limited(deadline):
                vectors, usage = await self._call(asked, time.perf_counter() + deadline)
            outcome = "direct"
            return Embedded(name, vectors, usage, pricing.cost(self.model, usage))
        except TimeoutError:
            raise self._late(deadline, began) from None
        except UpstreamFault as fault:
            raise UpstreamFailed(name, fault) from None
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            cost = pricing.cost(self.model, usage)
            entry = Entry(
                outcome=outcome,
                model=name if outcome == "direct" else None,
                cost=cost,
                saved=Decimal(0) if outcome == "direct" else -cost,
                latency_ms=(time.perf_counter() - began) * 1000,
                usage=usage,
                complexity="unknown",
                models=(name,),
            )
            try:
                await self._ledger.settle(reservation, entry)
            finally:
                for observe in self._observers:
                    observe(entry)

    async def _call(self, asked: Embedding, end: float) -> tuple[tuple[Vector, ...], Usage]:
        tries = 0
        while True:
            tries += 1
            try:
                self._breaker.check()
                vectors, usage = await self._upstream.embed(asked)
            except UpstreamFault as fault:
                wait = self._retries.wait(fault, tries, end - time.perf_counter())
                if wait is None:
                    self._breaker.failed(fault)
                    raise
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                self._breaker.abandoned()
                raise
            else:
                self._breaker.succeeded()
                tokens = sum(map(pricing.tokens, asked.texts))
                return vectors, usage or Usage(tokens, 0, estimated=True)

    def _late(self, deadline: float, began: float) -> CascadeError:
        """Out of time; before the deadline only a service that stops is."""
        early = time.perf_counter() - began < deadline
        return NotReady() if early else DeadlineExceeded(deadline)

    def _worst_case(self, asked: Embedding) -> Decimal:
        """No tokenizer makes more tokens than a text has bytes; models mark where it ends."""
        size = sum(len(text.encode()) + pricing.FRAMING for text in asked.texts)
        return size * self.model.input_price / pricing.PER_MILLION
