"""Ask the cascade: budget, deadline, cascadeflow's decision, an answer or a failure, the books.

`ask` and `open` run the same code, so a stream has the verdict, the model and the cost that a
plain answer would have; a stream only hears of them as they happen.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType

from app.cascade import buffering, pricing
from app.cascade.config import ActiveCascade
from app.cascade.embedding import Embedder
from app.cascade.errors import (
    CascadeError,
    ContextExceeded,
    DeadlineExceeded,
    NotReady,
    UpstreamFailed,
    UpstreamFault,
)
from app.cascade.exchange import CURRENT, Emit, Exchange, FinishedCall, Target
from app.cascade.flights import Flights
from app.cascade.resilience import Breaker, Retries
from app.cascade.routing import Router
from app.cascade.turns import turn
from app.cascade.types import Answer, Embedded, Embedding, Event, Query, Role
from app.cascade.upstream import Upstream
from app.cascade.upstream.embeddings import EmbeddingUpstream
from app.ledger import ANYONE, Account, Entry, Ledger, Reservation

Observer = Callable[[Entry], None]


class Engine:
    """The cascade of one app. `deadline` is in seconds and covers both models."""

    def __init__(
        self,
        models: ActiveCascade,
        upstreams: Mapping[Role, Upstream],
        ledger: Ledger,
        deadline: float,
        observers: Sequence[Observer] = (),
        *,
        attempts: int = 3,
        breaker_failures: int = 5,
        embeddings: EmbeddingUpstream | None = None,
    ) -> None:
        self.models = models
        self._targets: dict[Role, Target] = {
            role: Target(models.model(role), upstream, Breaker(breaker_failures))
            for role, upstream in upstreams.items()
        }
        self._retries = Retries(attempts)
        self._ledger = ledger
        self._deadline = deadline
        self._observers = observers
        self._router = Router(models)
        self._embedder = (
            Embedder(
                embeddings, ledger, deadline, observers, self._retries, Breaker(breaker_failures)
            )
            if embeddings
            else None
        )
        self._flights = Flights()
        self._limits: set[asyncio.Timeout] = set()
        self._abandoned = False

    @property
    def in_flight(self) -> int:
        """Queries that are being answered; of a stream, until it has been read."""
        return self._flights.count

    def refuse(self) -> None:
        """Take no more queries; those in flight go on."""
        self._flights.refusing = True

    async def idle(self) -> None:
        """Return once no query is in flight."""
        await self._flights.ended()

    def abandon(self) -> None:
        """End the queries in flight: each is told that the service is not ready, and settled."""
        self._flights.refusing = self._abandoned = True
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(0)

    async def ask(self, query: Query, account: Account = ANYONE) -> Answer:
        """The whole answer at once; the account pays.

        Raises:
            BudgetExceeded, ContextExceeded, LedgerUnavailable: before any model is asked.
            NotReady: the service stops.
            UpstreamFailed: no model that could answer is left.
            DeadlineExceeded: the query took too long.
        """
        with self._flights:
            asked = time.perf_counter()
            await turn()
            query, reservation = await self._admit(query, account)
            return await self._run(query, reservation, asked)

    async def embed(self, asked: Embedding, account: Account = ANYONE) -> Embedded:
        """Vectors of texts; the account pays.

        Raises:
            CascadeError: as `ask`; or nobody makes embeddings here.
        """
        with self._flights:
            if self._embedder is None:
                raise CascadeError("cascade.toml has no [embeddings]")
            return await self._embedder.embed(asked, account, self._limited)

    async def tell(
        self, query: Query, account: Account, emit: Emit, *, buffered: bool = False
    ) -> None:
        """Tell `emit` of the answer as it comes; the last event is `complete` or `error`.

        `buffered` holds back what may be withdrawn. No piece of text is read from an upstream
        before `emit` is done with the one before.

        Raises:
            BudgetExceeded, ContextExceeded, LedgerUnavailable, NotReady: before any model is
                asked, and the first event.
        """
        with self._flights:
            asked = time.perf_counter()
            query, reservation = await self._admit(query, account)
            await self._tell(query, reservation, asked, self._withheld(emit, buffered))

    @asynccontextmanager
    async def open(
        self, query: Query, account: Account = ANYONE, *, buffered: bool = False
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The same as events to go through at one's own pace; leaving stops the upstream.

        Raises:
            BudgetExceeded, ContextExceeded, LedgerUnavailable, NotReady: as `tell`.
        """
        events: asyncio.Queue[Event] = asyncio.Queue()
        with self._flights:
            asked = time.perf_counter()
            query, reservation = await self._admit(query, account)
            emit = self._withheld(events.put, buffered)
            task = asyncio.create_task(self._tell(query, reservation, asked, emit))
            try:
                # A task that is cancelled before its first step would never settle.
                await asyncio.sleep(0)
                yield _until_the_end(events)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _withheld(self, emit: Emit, buffered: bool) -> Emit:
        stands = self.models.on_verifier_failure == "error"
        return buffering.buffered(emit, verifier_stands=stands) if buffered else emit

    async def _tell(self, query: Query, reservation: Reservation, asked: float, emit: Emit) -> None:
        try:
            answer = await self._run(query, reservation, asked, emit)
        except Exception as error:
            await emit(Event("error", error=error))
        else:
            await emit(Event("complete", answer=answer))

    def _fitting(self, query: Query) -> Query:
        """The query as it fits: the verifier alone where the drafter's context is too small."""
        last = self.models.drafter if query.undrafted else self.models.verifier
        if not pricing.fits(query, last):
            raise ContextExceeded(last.name, last.context)
        if query.undrafted or pricing.fits(query, self.models.drafter):
            return query
        return replace(query, force_direct=True)

    async def _admit(self, query: Query, account: Account) -> tuple[Query, Reservation]:
        """The query as it fits, and money for the worst case."""
        query = self._fitting(query)
        both = (self.models.drafter, self.models.verifier)
        models = both[1:] if query.force_direct else both[:1] if query.undrafted else both
        worst = pricing.worst_case(query, models)
        return query, await self._ledger.reserve(worst, account)

    async def _run(
        self, query: Query, reservation: Reservation, asked: float, emit: Emit | None = None
    ) -> Answer:
        deadline = min(self._deadline, query.deadline or self._deadline)
        hurried = deadline < self._deadline
        exchange = Exchange(query, self._targets, self._retries, deadline, emit, hurried)
        started = time.perf_counter()
        answer: Answer | None = None
        cancelled = False
        try:
            answer = await self._decide(exchange, started)
            return answer
        except asyncio.CancelledError:
            cancelled = True
            raise
        finally:
            entry = Entry(
                outcome=answer.outcome if answer else "cancelled" if cancelled else "failed",
                model=answer.model_used if answer else None,
                cost=answer.cost if answer else exchange.cost,
                saved=answer.saved if answer else -exchange.cost,
                latency_ms=_milliseconds_since(started),
                usage=answer.usage if answer else exchange.usage,
                complexity=exchange.complexity,
                models=tuple(self.models.model(call.role).name for call in exchange.calls),
                queued_ms=(started - asked) * 1000,
                first_text_ms=exchange.first_text_ms,
                calls=exchange.reports(),
            )
            try:
                await self._ledger.settle(reservation, entry)
            finally:
                for observe in self._observers:
                    observe(entry)

    async def _decide(self, exchange: Exchange, started: float) -> Answer:
        token = CURRENT.set(exchange)
        failure: CascadeError | None = None
        try:
            async with self._limited(exchange.deadline):
                if exchange.query.undrafted:
                    await exchange.call("drafter")
                    exchange.reason = "asked for by its name"
                else:
                    await self._router.run(exchange.query)
        except TimeoutError:
            failure = NotReady() if self._abandoned else DeadlineExceeded(exchange.deadline)
            exchange.late()
        except UpstreamFault as fault:
            asked = self.models.drafter if exchange.query.undrafted else self.models.verifier
            failure = UpstreamFailed(asked.name, fault)
        finally:
            CURRENT.reset(token)
        call = self._answering(exchange, failure)
        if call.role == "drafter" and not exchange.query.undrafted:
            await exchange.keep_draft()
        return self._answer(exchange, call, started)

    def _limited(self, seconds: float) -> "_Limited":
        """Raises TimeoutError at the deadline, or when the service has no more time."""
        return _Limited(asyncio.timeout(0 if self._abandoned else seconds), self._limits)

    def _answering(self, exchange: Exchange, failure: CascadeError | None) -> FinishedCall:
        """Whose answer it is: the last model asked, or nobody's; cascadeflow's result has no say.

        | drafter | verifier | answers |
        |---|---|---|
        | accepted | not asked | drafter |
        | rejected or failed | fine | verifier |
        | not asked | fine | verifier |
        | asked alone, fine | not asked | drafter |
        | rejected | failed or late | nobody; or the drafter, if `on_verifier_failure` is draft |
        | failed or not asked | failed or late | nobody |
        | not judged in time | not asked | nobody |
        """
        calls = exchange.calls
        last = calls[-1].finished if calls else None
        if last and (last.role == "verifier" or failure is None):
            return last
        draft = calls[0].finished if len(calls) > 1 else None
        if draft and self.models.on_verifier_failure == "draft":
            return draft
        if failure is None and calls:
            name = self.models.model(calls[-1].role).name
            failure = UpstreamFailed(name, calls[-1].fault or UpstreamFault("malformed"))
        raise failure or CascadeError("cascadeflow asked no model")

    def _answer(self, exchange: Exchange, call: FinishedCall, started: float) -> Answer:
        undrafted = exchange.query.undrafted
        cascaded = exchange.calls[0].role == "drafter" and not undrafted
        # Who names a model has chosen its price.
        compared = self.models.model(call.role) if undrafted else self.models.verifier
        degraded = call.role == "drafter" and len(exchange.calls) > 1
        return Answer(
            content=call.completion.text,
            model_used=self.models.model(call.role).name,
            cost=exchange.cost,
            # Of a degraded answer: what the verifier's failure cost, for no answer at all.
            baseline_cost=pricing.cost(compared, exchange.calls[-1].usage),
            latency_ms=_milliseconds_since(started),
            cascaded=cascaded,
            draft_accepted=call.role == "drafter" and not degraded if cascaded else None,
            complexity=exchange.complexity,
            reason=exchange.decision.reason if exchange.decision else exchange.reason,
            finish_reason=call.completion.finish_reason,
            usage=exchange.usage,
            decision=exchange.decision,
            tool_calls=call.completion.tool_calls,
            tokens=call.completion.tokens,
            logprobs=call.completion.logprobs,
            degraded=degraded,
        )


@dataclass(slots=True)
class _Limited:
    """A limit that is in `limits` while it runs.

    Each query has one, and a generator in its place costs twice the time.
    """

    limit: asyncio.Timeout
    limits: set[asyncio.Timeout]

    async def __aenter__(self) -> None:
        await self.limit.__aenter__()
        self.limits.add(self.limit)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.limits.discard(self.limit)
        await self.limit.__aexit__(kind, raised, trace)


async def _until_the_end(events: asyncio.Queue[Event]) -> AsyncIterator[Event]:
    while True:
        event = await events.get()
        yield event
        if event.type in ("complete", "error"):
            return


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
