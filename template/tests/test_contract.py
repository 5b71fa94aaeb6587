"""What the service relies on in cascadeflow: a new cascadeflow release fails here first.

Each test asks the library itself. Its name is the sentence that it fails with, next to the file of
`src/app/cascade` that the library has broken; the verdicts themselves are in `test_verdicts.py`.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from types import FunctionType, ModuleType
from typing import Any, get_args

import httpx
import pytest
from cascadeflow.agent import CascadeAgent
from cascadeflow.providers import PROVIDER_REGISTRY
from cascadeflow.providers.base import ModelResponse
from cascadeflow.providers.openai import OpenAIProvider
from cascadeflow.quality import complexity
from cascadeflow.quality.complexity import ComplexityDetector, QueryComplexity
from cascadeflow.quality.confidence import ProductionConfidenceEstimator
from cascadeflow.quality.quality import AdaptiveThreshold
from cascadeflow.schema.config import ModelConfig
from cascadeflow.schema.result import CascadeResult

from app.cascade.config import Complexity, Provider
from app.cascade.linear import linearize
from app.cascade.provider import CERTAIN, IMPOSSIBLE, VANISHING
from app.cascade.routing import STRICTNESS

Options = dict[str, Any]

SIMPLE, HARD = "What is AI?", "Prove that the square root of 2 is irrational"
PLAN = "Analyze all cities, compare them, then if it rains unless it snows, plan and book a trip"
DRAFT = "AI is intelligence that machines show, for example when they learn from data."
CITY = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]}
CALL = {"id": "1", "type": "function", "name": "weather", "arguments": {"city": "Rome"}}
TOLD = {"messages": [{"role": role, "content": "Sunny."} for role in ("user", "tool")]}
TALK = {"messages": [{"role": "user", "content": HARD}] * 2}
ROUTES: tuple[Options, ...] = ({}, {"force_direct": True}, TOOLS)
FAULT = LookupError()
WHO: ContextVar[str] = ContextVar("who")


@contextmanager
def relied_on_by(file: str) -> Iterator[None]:
    """Let a test fail with one sentence, whatever the library does instead."""
    failure = ""
    try:
        yield
    except Exception as error:
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::test_")[2].removesuffix(" (call)")
        found = f"cascadeflow {version('cascadeflow')}: {type(error).__name__} {error}".split("\n")
        failure = f'cascade/{file} relies on it that "{test.replace("_", " ")}" ({found[0]})'
    if failure:
        pytest.fail(failure, pytrace=False)


class Models:
    """A provider as ours is, for both models, and what they and cascadeflow's judges do."""

    def __init__(self, confidence: float = 0.9, *calls: Options, **faults: Exception) -> None:
        self.confidence, self.calls, self.faults = confidence, calls, faults
        self.asked: list[Options] = []
        self.judged: list[Options] = []
        self.order: list[str] = []

    async def complete(self, **asked: Any) -> ModelResponse:  # noqa: ANN401
        name = asked["model"]
        self.asked.append(asked | {"who": WHO.get("")})
        self.order.append(name)
        await asyncio.sleep(0)
        if name in self.faults:
            raise self.faults[name]
        return ModelResponse(DRAFT, name, "custom", 0.0, 0, self.confidence, metadata={})

    async def complete_with_tools(self, **asked: Any) -> ModelResponse:  # noqa: ANN401
        response = await self.complete(**asked)
        response.tool_calls = list(self.calls)
        return response

    def watch(self, judge: object, method: str) -> None:
        """Keep what a judge is asked and what it finds."""
        judging = getattr(judge, method)

        def watched(*args: object, **asked: object) -> object:
            self.order.append("judge")
            self.judged.append(asked | {"found": judging(*args, **asked)})
            return self.judged[-1]["found"]

        setattr(judge, method, watched)


def cascade(models: Models, thresholds: dict[str, float] | None = None) -> CascadeAgent:
    """An agent as cascade/routing.py builds it, but with the library's own parts."""
    costs = {"verifier": 2.0, "drafter": 1.0}
    quality = STRICTNESS["balanced"]()
    quality.confidence_thresholds.update(thresholds or {})
    configs = [ModelConfig(name, provider="custom", cost=cost) for name, cost in costs.items()]
    agent = CascadeAgent(configs, quality_config=quality)
    agent.model_providers = agent.cascade.model_providers = dict.fromkeys(costs, models)
    models.watch(agent.cascade.quality_validator, "validate")
    models.watch(agent.cascade.tool_quality_validator, "validate_tool_calls")
    return agent


def run(agent: CascadeAgent, query: str = SIMPLE, **options: Any) -> CascadeResult:  # noqa: ANN401
    return asyncio.run(agent.run(query, max_steps=1, **options))


def weights(agent: CascadeAgent) -> dict[str, int]:
    """How many references the parts of an agent hold, with all that they lead to."""

    def held(part: object, seen: set[int]) -> int:
        outside = isinstance(part, type | ModuleType | FunctionType | logging.Logger | Models)
        if id(part) in seen or outside:
            return 0
        seen.add(id(part))
        parts = gc.get_referents(part)
        return len(parts) + sum(held(each, seen) for each in parts)

    return {name: held(part, set()) for name, part in vars(agent).items()}


CALLS: dict[str, tuple[Models, Options, str]] = {
    "an accepted draft of the cheapest model is the only call": (Models(0.6), {}, "drafter judge"),
    "so is one that calls a tool": (Models(0.6, CALL), TOOLS, "drafter judge"),
    "the dearest waits for the judge": (Models(0.1), {}, "drafter judge verifier"),
    "also with tools": (Models(0.1, CALL | {"name": "?"}), TOOLS, "drafter judge verifier"),
    "a failed draft is not judged": (Models(drafter=FAULT), {}, "drafter verifier"),
    "neither with tools": (Models(drafter=FAULT), TOOLS, "drafter verifier"),
    "nobody is asked again": (Models(drafter=FAULT, verifier=FAULT), {}, "drafter verifier"),
    "force_direct asks the dearest": (Models(), {"force_direct": True}, "verifier"),
    "so does a hard question": (Models(), {"query": HARD}, "verifier"),
    "one step is one call": (Models(0.9, CALL), {"query": PLAN, **TOOLS}, "verifier"),
    "text is no draft where tools are offered": (Models(), TOOLS, "drafter verifier"),
    "unless a tool has answered": (Models(), TOLD | TOOLS, "drafter"),
}


@pytest.mark.parametrize(("models", "options", "order"), CALLS.values(), ids=CALLS)
@relied_on_by("engine.py")
def test_who_is_asked(models: Models, options: Options, order: str) -> None:
    assert run(cascade(models), **options).reason
    assert " ".join(models.order) == order


@relied_on_by("routing.py")
def test_an_agent_needs_neither_a_provider_of_cascadeflows_own_nor_an_embedding_model() -> None:
    agent = cascade(Models())
    assert "custom" not in PROVIDER_REGISTRY
    assert agent.providers == {}
    assert not agent.cascade.semantic_quality_checker


@pytest.mark.parametrize("options", [TOOLS, {"force_direct": True}])
@relied_on_by("engine.py")
def test_the_fault_of_a_direct_call_is_raised_as_it_is(options: Options) -> None:
    with pytest.raises(LookupError):
        run(cascade(Models(verifier=FAULT)), PLAN, **options)


@pytest.mark.parametrize("options", ROUTES)
@relied_on_by("provider.py")
def test_what_was_asked_arrives_by_name_and_unchanged(options: Options) -> None:
    models = Models()
    run(cascade(models), f" {SIMPLE}\n", max_tokens=7, temperature=0.3, **options)
    asked = models.asked[0]
    assert (asked["max_tokens"], asked["temperature"]) == (7, 0.3)
    assert (asked.get("prompt") or asked["messages"][0]["content"]) == f" {SIMPLE}\n"


@relied_on_by("view.py")
def test_a_conversation_is_shown_as_a_line_for_each_turn() -> None:
    models = Models()
    run(cascade(models), "", **TOLD)
    assert models.asked[0]["prompt"] == "User: Sunny.\nTool: Sunny."


@pytest.mark.parametrize("options", ROUTES)
@relied_on_by("exchange.py")
def test_a_call_sees_the_context_of_its_own_run(options: Options) -> None:
    models = Models(0.1)
    agent = cascade(models)

    async def ask(who: str) -> None:
        WHO.set(who)
        await agent.run(who, **options)

    async def ask_both() -> None:
        await asyncio.gather(ask("Who is A?"), ask("Who is B?"))

    asyncio.run(ask_both())
    texts = [asked.get("prompt") or asked["messages"][0]["content"] for asked in models.asked]
    assert len(texts) == (2 if "force_direct" in options else 4)
    assert texts == [asked["who"] for asked in models.asked]


@pytest.mark.parametrize("calls", [1, 2])
@relied_on_by("engine.py")
def test_cancelling_a_run_cancels_its_call(calls: int) -> None:
    models = Models(0.1)

    async def cancel() -> None:
        task = asyncio.create_task(cascade(models).run(SIMPLE))
        while len(models.asked) < calls and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(cancel())


@pytest.mark.parametrize("options", ROUTES)
@relied_on_by("routing.py")
def test_the_agents_detector_alone_tells_the_complexity_and_only_once(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, own = Models(0.1), ComplexityDetector()  # type: ignore[no-untyped-call]
    agent = cascade(models)
    agent.complexity_detector = own
    models.watch(own, "detect")
    monkeypatch.setattr(ComplexityDetector, "detect", None)
    run(agent, **options)
    assert models.order.count("judge") == (1 if "force_direct" in options else 2)
    assert models.judged[0]["return_metadata"]


@relied_on_by("linear.py")
def test_the_detector_only_searches_and_with_patterns_that_it_keeps_and_re2_can_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stock, ours = ComplexityDetector(), ComplexityDetector()  # type: ignore[no-untyped-call]
    linearize(ours)
    monkeypatch.setattr(complexity, "re", None)
    for query in (SIMPLE, HARD, PLAN, "def f(x):", r"\frac{a}{b} ∑", f"Text: {HARD * 80} Why?"):
        assert ours.detect(query, None, True) == stock.detect(query, None, True)


@relied_on_by("routing.py")
def test_math_is_told_by_latex_patterns_and_by_single_symbols_outside_ascii() -> None:
    detector = ComplexityDetector()  # type: ignore[no-untyped-call]
    detector.compiled_latex_patterns = []
    assert detector._detect_math_notation("".join(map(chr, range(128))) + r"\frac") == []
    assert sorted(detector._detect_math_notation("a∑∑∫")) == ["∑", "∫"]
    models = Models()
    models.watch(detector, "_detect_math_notation")
    assert detector.detect(HARD, None, True)
    assert models.order == ["judge"]
