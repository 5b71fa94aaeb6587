"""What is asked about a question alone is answered while the drafter thinks."""

import asyncio
from collections.abc import Callable
from decimal import Decimal

import pytest
from cascadeflow.quality.query_difficulty import QueryDifficultyEstimator

from app.cascade.config import activate, load
from app.cascade.engine import Engine
from app.cascade.types import Completion, Query, Role
from app.cascade.upstream import OnText, Upstream
from tests.conftest import CASCADE, ledger_in_memory

Estimate = Callable[[QueryDifficultyEstimator, str, bool], float]


class Thoughtful:
    """A model that notes when it has thought."""

    def __init__(self, happened: list[str]) -> None:
        self._happened = happened

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        await asyncio.sleep(0.05)
        self._happened.append("drafted")
        return Completion("Paris is the capital of France.", "stop", None)

    async def reach(self) -> None:
        return None


def happened(monkeypatch: pytest.MonkeyPatch, estimate: Estimate) -> list[object]:
    """When a query was read and drafted, and what the event loop was told of failures."""
    noted: list[str] = []
    told: list[object] = []

    def noting(holder: QueryDifficultyEstimator, query: str, verbose: bool = False) -> float:
        noted.append("read")
        return estimate(holder, query, verbose)

    monkeypatch.setattr(QueryDifficultyEstimator, "estimate", noting)

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
        model = Thoughtful(noted)
        models = activate(load(CASCADE), simulated=True)
        upstreams: dict[Role, Upstream] = {"drafter": model, "verifier": model}
        engine = Engine(models, upstreams, ledger_in_memory(Decimal(10)), deadline=60)
        await engine.ask(Query.ask("What is the capital of France?"))

    asyncio.run(ask())
    return [*noted, *told]


def test_a_question_is_read_while_the_drafter_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert happened(monkeypatch, QueryDifficultyEstimator.estimate)[:2] == ["read", "drafted"]


def test_it_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert happened(monkeypatch, QueryDifficultyEstimator.estimate).count("read") == 1


def test_what_fails_meanwhile_is_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop's log of it would hold the question."""
    failures = [ValueError()]

    def estimate(holder: QueryDifficultyEstimator, query: str, verbose: bool) -> float:
        if failures:
            raise failures.pop()
        return 0.3

    assert happened(monkeypatch, estimate) == ["read", "drafted", "read"]
