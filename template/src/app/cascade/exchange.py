"""One query on its way through the cascade: its calls, the verdict, the events it sends."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from app.cascade import pricing
from app.cascade.config import Model
from app.cascade.errors import FaultKind, UpstreamFault
from app.cascade.resilience import Breaker, Retries
from app.cascade.turns import turn
from app.cascade.types import (
    CallReport,
    Completion,
    Decision,
    Event,
    EventType,
    Json,
    Query,
    Role,
    Usage,
)
from app.cascade.upstream import OnText, Upstream
from app.values import value

DRAFTER_SHARE = 0.5
"""Of the deadline: a drafter that hangs leaves the verifier time to answer."""

Emit = Callable[[Event], Awaitable[None]]


class Validation(Protocol):
    """What cascadeflow's validator found; it may still change the reason before it escalates."""

    score: float
    reason: str


@dataclass(slots=True)
class Judgement:
    """A validation that is our own reading of cascadeflow's."""

    score: float
    reason: str


@value
class Target:
    """One model of an app, and the way to it."""

    model: Model
    upstream: Upstream
    breaker: Breaker


@dataclass(slots=True)
class Call:
    """One call to one model; a finished one has a completion, a failed one its fault."""

    role: Role
    completion: Completion | None = None
    fault: UpstreamFault | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    """Of all tries together."""
    sent: int = 0
    """Characters of this call that the client has been sent."""
    telling: bool = False
    """Whether a piece of its text waits for the client to read those before."""
    faults: list[FaultKind] = field(default_factory=list)
    """Of the tries that failed."""
    began: float = field(default_factory=time.time)
    seconds: float = 0.0

    @property
    def finished(self) -> "FinishedCall | None":
        return FinishedCall(self.role, self.completion) if self.completion else None


@value
class FinishedCall:
    """A call that has an answer."""

    role: Role
    completion: Completion


@dataclass(slots=True)
class Exchange:
    """What happens to one query, seen from between cascadeflow and the upstreams.

    `deadline` is in seconds from now on; `hurried` if the client has shortened it.
    """

    query: Query
    targets: Mapping[Role, Target]
    retries: Retries
    deadline: float
    emit: Emit | None = None
    hurried: bool = False
    complexity: str = "unknown"
    reason: str = ""
    """Why it was routed so."""
    confidence: float = 0.0
    validation: Validation | None = None
    decision: Decision | None = None
    calls: list[Call] = field(default_factory=list)
    started: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    first_text_ms: float | None = None
    """From the start until a model had said something, where it is heard while it speaks."""

    async def call(self, role: Role) -> Completion:
        """Ask one model, streaming its text to the client if the client streams.

        Raises:
            UpstreamFault: the call failed; an answer without text is a failure.
        """
        await self._announce(role)
        call = Call(role)
        self.calls.append(call)
        began = time.perf_counter()
        shared = role == "drafter" and not self.query.undrafted
        share = DRAFTER_SHARE if shared else 1.0
        end = self.started + self.deadline * share
        try:
            # The verifier's end is the query's own: the engine sees to it, and calls `late`.
            async with asyncio.timeout_at(end if shared else None):
                call.completion = await self._answer(call, end)
        except TimeoutError:
            raise self._late(call) from None
        except UpstreamFault as fault:
            call.fault = fault
            raise
        finally:
            call.seconds = time.perf_counter() - began
        await turn()
        return call.completion

    def late(self) -> None:
        """The deadline has passed, for the model that was being asked as well."""
        if self.calls and not self.calls[-1].completion and not self.calls[-1].fault:
            self._late(self.calls[-1])

    def _late(self, call: Call) -> UpstreamFault:
        call.fault = UpstreamFault("timeout")
        call.faults.append("timeout")
        # A client in a hurry, or one that does not read, must not close a model to the others.
        if not self.hurried and not call.telling:
            self.targets[call.role].breaker.failed(call.fault)
        return call.fault

    async def _answer(self, call: Call, end: float) -> Completion:
        """Try until an answer comes, the fault will not pass, or there is no time for another."""
        breaker = self.targets[call.role].breaker
        tries = 0
        while True:
            tries += 1
            try:
                breaker.check()
                completion = await self._try(call)
            except UpstreamFault as fault:
                call.faults.append(fault.kind)
                remaining = end - asyncio.get_running_loop().time()
                wait = self.retries.wait(fault, tries, remaining)
                # What a client has been sent cannot be said again.
                if wait is None or call.sent:
                    breaker.failed(fault)
                    raise
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                breaker.abandoned()
                raise
            else:
                breaker.succeeded()
                return completion

    async def _try(self, call: Call) -> Completion:
        seen: list[str] = []
        upstream = self.targets[call.role].upstream
        try:
            completion = await upstream.answer(self.query, self._listener(call, seen))
        except UpstreamFault:
            if seen:
                call.usage += pricing.estimate(self.query, "".join(seen))
            raise
        except asyncio.CancelledError:
            # The client left or time is up: the upstream charges for what it has done.
            call.usage += pricing.estimate(self.query, "".join(seen))
            raise
        if completion.usage:
            call.usage += completion.usage
        elif completion.text or completion.tool_calls:
            call.usage += pricing.estimate(self.query, completion.text)
        if not completion.text.strip() and not completion.tool_calls:
            raise UpstreamFault("empty")
        return completion

    def _listener(self, call: Call, seen: list[str]) -> OnText | None:
        """What hears each piece of text, if the client does."""
        emit = self.emit
        if not emit:
            return None
        speaker = self._speaker(call.role)

        async def on_text(piece: str) -> None:
            seen.append(piece)
            if self.first_text_ms is None:
                self.first_text_ms = (asyncio.get_running_loop().time() - self.started) * 1000
            call.sent += len(piece)
            call.telling = True
            await emit(Event("chunk", piece, speaker))
            call.telling = False

        return on_text

    def judged(self, confidence: float, validation: Validation) -> None:
        """Keep what cascadeflow thinks of the draft until it acts on it."""
        self.confidence, self.validation = confidence, validation

    async def decide(self, *, accepted: bool) -> None:
        """Note the verdict on the draft and tell the client."""
        if self.validation:
            score, reason = self.validation.score, self.validation.reason
        else:
            fault = self.calls[0].fault
            score, reason = None, f"the drafter failed: {fault.kind}" if fault else "not judged"
        self.decision = Decision(accepted, self.confidence, score, reason)
        await self._emit(
            "draft_decision",
            {
                "accepted": accepted,
                "confidence": round(self.confidence, 4),
                "score": None if score is None else round(score, 4),
                "reason": reason,
            },
        )

    async def keep_draft(self) -> None:
        """Tell the client that the draft is the answer, after all if the verifier has failed."""
        if len(self.calls) == 1:
            await self.decide(accepted=True)
            return
        draft = self.calls[0].completion
        await self._emit_switch("verifier", "drafter", self.calls[-1].sent)
        if draft:
            await self._emit("chunk", self._speaker("drafter"), draft.text)

    @property
    def cost(self) -> Decimal:
        """US dollars spent so far."""
        costs = (pricing.cost(self.targets[call.role].model, call.usage) for call in self.calls)
        return sum(costs, start=Decimal(0))

    @property
    def usage(self) -> Usage:
        """The tokens of all calls together."""
        return sum((call.usage for call in self.calls), start=Usage(0, 0))

    def reports(self) -> tuple[CallReport, ...]:
        """What became of each call."""
        return tuple(
            CallReport(
                call.role,
                model.name,
                model.provider,
                call.began,
                call.seconds,
                call.usage,
                tuple(call.faults),
                call.completion.finish_reason if call.completion else None,
                call.completion is not None,
            )
            for call in self.calls
            for model in (self.targets[call.role].model,)
        )

    async def _announce(self, role: Role) -> None:
        if not self.calls:
            drafts = role == "drafter" and not self.query.undrafted
            strategy = "cascade" if drafts else "direct"
            await self._emit("routing", {"strategy": strategy, "complexity": self.complexity})
            return
        await self.decide(accepted=False)
        await self._emit_switch("drafter", "verifier", self.calls[0].sent)

    async def _emit_switch(self, from_role: Role, to_role: Role, discard: int) -> None:
        names = {role: target.model.name for role, target in self.targets.items()}
        await self._emit(
            "switch",
            {
                "from_model": names[from_role],
                "to_model": names[to_role],
                "discard": discard,
            },
        )

    def _speaker(self, role: Role) -> Mapping[str, Json]:
        """Who says a piece of text."""
        model = self.targets[role].model
        alone = len(self.calls) == 1 and (role == "verifier" or self.query.undrafted)
        phase = "direct" if alone else _PHASES[role]
        return {"model": model.name, "phase": phase, "provider": model.provider}

    async def _emit(self, kind: EventType, data: Mapping[str, Json], content: str = "") -> None:
        if self.emit:
            await self.emit(Event(kind, content, data))


_PHASES: Mapping[Role, str] = {"drafter": "draft", "verifier": "verifier"}

CURRENT: ContextVar[Exchange] = ContextVar("exchange")
"""The exchange that the running task belongs to; cascadeflow passes no such thing through."""
