"""Prompts through the cascade, some at a time, until all are answered or something says stop."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from decimal import Decimal

from app.cascade import pricing
from app.cascade.engine import Engine
from app.cascade.errors import BudgetExceeded, LedgerUnavailable, NotReady
from app.cascade.types import Answer
from app.http.problems import from_cascade
from app.ledger import Account, Entry
from app.replay.read import Prompt
from app.replay.results import CannotWrite, Result, Results

ME = Account("replay")
"""Who pays for what is replayed."""
HOPELESS = 10
"""Failures in a row after which no more is asked."""

_ENTRY: ContextVar[list[Entry]] = ContextVar("entry")


def note(entry: Entry) -> None:
    """An observer for the engine: what the books say of a query is heard by who asked it."""
    _ENTRY.get().append(entry)


class Run:
    """One run. `budget` is in US dollars, for all runs into the same results together."""

    def __init__(
        self,
        engine: Engine,
        results: Results,
        on_result: Callable[[Result], None],
        budget: Decimal | None = None,
    ) -> None:
        self.stopped = ""
        """Why no more is asked, if so."""
        self._engine = engine
        self._results = results
        self._on_result = on_result
        self._budget = budget
        self._held = Decimal(0)
        self._failures = 0
        self._settled = asyncio.Condition()

    def stop(self, why: str) -> None:
        """Ask no more; what is being asked is still answered and kept."""
        self.stopped = self.stopped or why

    async def answer(self, prompts: Iterable[Prompt], concurrency: int) -> None:
        """Ask so many at a time, in order."""
        waiting = iter(prompts)
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(waiting))

    async def _work(self, waiting: Iterator[Prompt]) -> None:
        for prompt in waiting:
            worst = pricing.worst_case(
                prompt.query, (self._engine.models.drafter, self._engine.models.verifier)
            )
            if not await self._hold(worst):
                return
            result = None
            try:
                result = await self._ask(prompt)
            finally:
                async with self._settled:
                    self._held -= worst
                    if result:
                        self._keep(result)
                    self._settled.notify_all()

    async def _hold(self, worst: Decimal) -> bool:
        """Set the worst case aside; wait for others to settle if it does not fit beside them."""
        async with self._settled:
            while not self.stopped and self._exceeds(worst):
                if not self._held:
                    self.stop(f"the next prompt could exceed the budget of ${self._budget:f}")
                else:
                    await self._settled.wait()
            self._held += 0 if self.stopped else worst
            return not self.stopped

    def _exceeds(self, worst: Decimal) -> bool:
        if self._budget is None:
            return False
        return self._results.spent + self._held + worst > self._budget

    def _keep(self, result: Result) -> None:
        try:
            self._results.add(result)
        except CannotWrite as error:
            self.stop(str(error))
            return
        self._on_result(result)
        self._failures = 0 if result.answered else self._failures + 1
        if self._failures >= HOPELESS:
            self.stop(f"{HOPELESS} prompts in a row failed, the last so: {result.reason}")

    async def _ask(self, prompt: Prompt) -> Result | None:
        heard: list[Entry] = []
        _ENTRY.set(heard)
        draft: list[str] = []
        try:
            async with self._engine.open(prompt.query, ME) as events:
                async for event in events:
                    if event.type == "chunk" and event.data["phase"] == "draft":
                        draft.append(event.content)
                    elif event.answer:
                        return _answered(prompt, event.answer, "".join(draft), heard[0])
                    elif event.error:
                        raise event.error
        except (LedgerUnavailable, NotReady) as error:
            self.stop(from_cascade(error).detail)
        except BudgetExceeded as error:
            if error.scope == "query":
                return _failed(prompt, error, heard)
            self.stop(from_cascade(error).detail)
        except Exception as error:
            return _failed(prompt, error, heard)
        return None


def _answered(prompt: Prompt, answer: Answer, draft: str, entry: Entry) -> Result:
    verifier = [call.seconds * 1000 for call in entry.calls if call.role == "verifier"]
    return Result(
        key=prompt.key,
        line=prompt.line,
        name=prompt.name,
        prompt=prompt.question,
        outcome=answer.outcome,
        complexity=answer.complexity,
        reason=answer.reason,
        model=answer.model_used,
        answer=answer.content,
        draft=draft if answer.outcome == "rejected" else "",
        confidence=round(answer.decision.confidence, 4) if answer.decision else None,
        cost=answer.cost,
        baseline=answer.baseline_cost,
        latency_ms=round(answer.latency_ms, 1),
        verifier_ms=round(verifier[0], 1) if verifier else None,
        input_tokens=answer.usage.input_tokens,
        output_tokens=answer.usage.output_tokens,
        finish_reason=answer.finish_reason,
    )


def _failed(prompt: Prompt, error: Exception, heard: list[Entry]) -> Result:
    entry = heard[0] if heard else None
    return Result(
        key=prompt.key,
        line=prompt.line,
        name=prompt.name,
        prompt=prompt.question,
        outcome="failed",
        complexity=entry.complexity if entry else "unknown",
        reason=from_cascade(error).detail,
        model=None,
        answer="",
        draft="",
        confidence=None,
        cost=entry.cost if entry else Decimal(0),
        baseline=Decimal(0),
        latency_ms=round(entry.latency_ms, 1) if entry else 0.0,
        verifier_ms=None,
        input_tokens=entry.usage.input_tokens if entry else 0,
        output_tokens=entry.usage.output_tokens if entry else 0,
    )
