"""What the service relies on in cascadeflow: a new cascadeflow release fails here first.

Each test asks the library itself. Its name is the sentence that it fails with, next to the file of
`src/app/cascade` that the library has broken; the verdicts themselves are in `test_verdicts.py`.
"""

import asyncio
import gc
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from importlib.metadata import version
from inspect import signature
from itertools import combinations
from types import FunctionType, ModuleType
from typing import Any, get_args

import pytest
from cascadeflow.agent import CascadeAgent
from cascadeflow.providers import PROVIDER_REGISTRY
from cascadeflow.providers.base import ModelResponse
from cascadeflow.quality import complexity
from cascadeflow.quality.alignment_scorer import QueryResponseAlignmentScorer
from cascadeflow.quality.complexity import ComplexityDetector
from cascadeflow.quality.confidence import ProductionConfidenceEstimator
from cascadeflow.quality.quality import AdaptiveThreshold, QualityConfig, QualityValidator
from cascadeflow.routing.task_detector import TaskDetector
from cascadeflow.schema.config import ModelConfig
from cascadeflow.schema.result import CascadeResult
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cascade import letters, questions
from app.cascade.config import Complexity, Provider, activate, load
from app.cascade.estimators import Alignment, Difficulty
from app.cascade.linear import linearize
from app.cascade.provider import CERTAIN, IMPOSSIBLE, VANISHING, _Estimator
from app.cascade.routing import STRICTNESS, Router, _Detector, _TaskDetector, _Validator
from tests.conftest import CASCADE

Options = dict[str, Any]
Patch = pytest.MonkeyPatch

SIMPLE, HARD = "What is AI?", "Prove that the square root of 2 is irrational"
PLAN = "Analyze all cities, compare them, then if it rains unless it snows, plan and book a trip"
DRAFT = "AI is intelligence that machines show, for example when they learn from data."
CITY = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]}
CALL = {"id": "1", "type": "function", "name": "weather", "arguments": {"city": "Rome"}}
TOLD = {"messages": [{"role": role, "content": "Sunny."} for role in ("user", "tool")]}
DIRECT, PLANNED = {"force_direct": True}, {"query": PLAN, **TOOLS}
ROUTES: dict[str, Options] = {"cascade": {}, "direct": DIRECT, "tools": TOOLS}
FAULT = LookupError("no model")
WHO: ContextVar[str] = ContextVar("who")

on_every_route = pytest.mark.parametrize("options", ROUTES.values(), ids=ROUTES)


@contextmanager
def relied_on_by(file: str) -> Iterator[None]:
    """Let a test fail with one sentence, whatever the library does instead."""
    try:
        yield
    except Exception as error:
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::test_")[2].removesuffix(" (call)")
        found = f"cascadeflow {version('cascadeflow')}: {type(error).__name__} {error}".split("\n")
        told = f'cascade/{file} relies on it that "{test.replace("_", " ")}" ({found[0]})'
        raise pytest.fail.Exception(told, pytrace=False) from None


class Models:
    """A provider as ours is, for both models, and what they and cascadeflow's judges do."""

    def __init__(self, confidence: float = 0.9, *calls: Options, **faults: Exception) -> None:
        self.confidence, self.calls, self.faults = confidence, calls, faults
        self.pauses: dict[str, float] = {}
        self.asked, self.judged, self.order = list[Options](), list[Options](), list[str]()

    async def complete(self, **asked: Any) -> ModelResponse:  # noqa: ANN401
        name = asked["model"]
        self.asked.append(asked | {"who": WHO.get("")})
        self.order.append(name)
        await asyncio.sleep(self.pauses.get(name, 0))
        if name in self.faults:
            raise self.faults[name]
        return ModelResponse(DRAFT, name, "custom", 0.0, 0, self.confidence, metadata={})

    async def complete_with_tools(self, **asked: Any) -> ModelResponse:  # noqa: ANN401
        response = await self.complete(**asked)
        response.tool_calls = list(self.calls)
        return response

    def watch(self, judge: object, method: str) -> None:
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


def weight(part: object, seen: set[int]) -> int:
    """How many references a part of an agent holds, with all that it leads to."""
    seen.add(id(part))
    outside = type | ModuleType | FunctionType | logging.Logger | Models
    parts = [each for each in gc.get_referents(part) if not isinstance(each, outside)]
    return len(parts) + sum(weight(each, seen) for each in parts if id(each) not in seen)


ORDERS: dict[str, tuple[Models, Options, str]] = {
    "an accepted draft of the cheapest is the only call": (Models(0.6), {}, "drafter judge"),
    "an accepted tool call is the only call": (Models(0.6, CALL), TOOLS, "drafter judge"),
    "the dearest waits for the judge": (Models(0.1), {}, "drafter judge verifier"),
    "tool calls are judged too": (Models(0.1, {"name": "?"}), TOOLS, "drafter judge verifier"),
    "a failed draft is not judged": (Models(drafter=FAULT), {}, "drafter verifier"),
    "a failed tool call is not judged": (Models(drafter=FAULT), TOOLS, "drafter verifier"),
    "no model is asked again": (Models(drafter=FAULT, verifier=FAULT), {}, "drafter verifier"),
    "force_direct asks the dearest": (Models(), DIRECT, "verifier"),
    "a hard question asks the dearest": (Models(), {"query": HARD}, "verifier"),
    "a direct fault is raised as it is": (Models(verifier=FAULT), DIRECT, "verifier raised"),
    "a direct fault with tools is raised too": (Models(verifier=FAULT), PLANNED, "verifier raised"),
    "one step with tools is one call": (Models(0.9, CALL), PLANNED, "verifier"),
    "text is no draft where tools are offered": (Models(), TOOLS, "drafter verifier"),
    "text is a draft once a tool has answered": (Models(), TOLD | TOOLS, "drafter"),
}


@pytest.mark.parametrize(("models", "options", "order"), ORDERS.values(), ids=ORDERS)
@relied_on_by("engine.py")
def test_calls_come_in_order(models: Models, options: Options, order: str) -> None:
    try:
        assert run(cascade(models), **options).reason
    except LookupError:
        models.order.append("raised")
    assert " ".join(models.order) == order


@relied_on_by("routing.py")
def test_an_agent_needs_no_provider_of_cascadeflows_own_and_no_embedding_model() -> None:
    assert "custom" not in PROVIDER_REGISTRY
    assert not cascade(Models()).cascade.semantic_quality_checker


@on_every_route
@relied_on_by("provider.py")
def test_what_was_asked_arrives_by_name_and_unchanged(options: Options) -> None:
    run(cascade(models := Models()), f" {SIMPLE}\n", max_tokens=7, temperature=0.3, **options)
    asked = {"prompt": f" {SIMPLE}\n"} if options is not TOOLS else {}
    assert models.asked[0].items() >= {"max_tokens": 7, "temperature": 0.3, **asked}.items()


@relied_on_by("view.py")
def test_a_conversation_is_shown_as_a_line_for_each_turn() -> None:
    run(cascade(models := Models()), "", **TOLD)
    assert models.asked[0]["prompt"] == "User: Sunny.\nTool: Sunny."


@on_every_route
@relied_on_by("exchange.py")
def test_a_call_sees_the_context_of_its_own_run(options: Options) -> None:
    models, context = Models(0.1), copy_context()
    context.run(WHO.set, "this run")
    context.run(run, cascade(models), **options)
    assert {asked["who"] for asked in models.asked} == {"this run"}


@pytest.mark.parametrize("pausing", ["drafter", "verifier"])
@relied_on_by("engine.py")
def test_cancelling_a_run_cancels_its_call(pausing: str) -> None:
    models = Models(0.1)
    models.pauses[pausing] = 3600

    async def cancel() -> None:
        task = asyncio.create_task(cascade(models).run(SIMPLE))
        while pausing not in models.order and not task.done():  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (task.cancelled(), asyncio.all_tasks()) == (True, {asyncio.current_task()})

    asyncio.run(cancel())


def strings(constants: Iterable[object]) -> set[str]:
    """The texts among what a function's code holds, tuples of them too."""
    nested = [each for each in constants if isinstance(each, tuple)]
    found = {each for each in constants if isinstance(each, str)}
    return found.union(*map(strings, nested))


@on_every_route
@relied_on_by("routing.py")
def test_one_detector_tells_the_complexity_and_once(options: Options, monkeypatch: Patch) -> None:
    agent, told = cascade(Models(0.1)), Models()
    agent.complexity_detector = ComplexityDetector()  # type: ignore[no-untyped-call]
    told.watch(agent.complexity_detector, "detect")
    monkeypatch.setattr(ComplexityDetector, "detect", lambda *_, **__: told.order.append("other"))
    run(agent, **options)
    assert told.order == ["judge"]


@relied_on_by("routing.py")
def test_an_agent_makes_those_parts_that_go_by_their_names_in_its_module() -> None:
    agent = Router(activate(load(CASCADE), simulated=True))._agent
    detectors = agent.complexity_detector, agent.router.detector
    assert [type(each) for each in detectors] == [_Detector] * 2
    judges = agent.cascade, agent.cascade.quality_validator
    assert [each.complexity_detector for each in judges] == [None] * 2


@relied_on_by("linear.py")
def test_the_detector_searches_with_its_own_patterns_that_re2_reads(monkeypatch: Patch) -> None:
    stock, ours = ComplexityDetector(), ComplexityDetector()  # type: ignore[no-untyped-call]
    linearize(ours)
    monkeypatch.setattr(complexity, "re", None)
    for query in (SIMPLE, HARD, PLAN, "def f(x):", r"\frac{a}{b} ∑", f"Text: {HARD * 80} Why?"):
        assert ours.detect(query, None, True) == stock.detect(query, None, True)


def asked() -> list[questions.Question]:
    """What cascadeflow's own parts ask about a draft's prompt."""
    estimator = ProductionConfidenceEstimator("openai")
    return questions.of(QueryResponseAlignmentScorer(), QualityValidator(), estimator)


@pytest.mark.parametrize("number", range(len(asked())), ids=[each.name for each in asked()])
@relied_on_by("questions.py")
def test_a_prompt_without_a_phrase_of_a_question_is_not_of_the_kind(number: int) -> None:
    stock, ours = asked()[number], asked()
    questions.ask_sparingly(ours)
    prompts = ["Nothing of the kind"] + [
        f"{'A) one B) two ' * count}{first}: {' '.join((first, second))}"
        for first, second in combinations(
            sorted({*strings(stock.ask.__code__.co_consts), *stock.more}), 2
        )
        for count in (0, 300)
    ]
    draft = ["Category: poetry"] * (len(signature(stock.ask).parameters) - 1)
    prompts += [prompt.upper() for prompt in prompts]
    answers = [ours[number].ask(*draft, prompt) for prompt in prompts]
    assert answers == [stock.ask(*draft, prompt) for prompt in prompts]
    assert {*answers} == {True, False}


@relied_on_by("routing.py")
def test_a_prompt_about_mathematics_has_a_price_or_one_of_the_phrases_in_it() -> None:
    stock, ours = QualityValidator(), _Validator(QualityConfig(), Difficulty(), Alignment())
    found = strings(QualityValidator._is_math_query.__code__.co_consts[1:])
    prompts = [f"It is {each}" for each in found] + ["", "$7", "7 dollars", "9 cents", "recent"]
    for prompt in [*prompts, *map(str.upper, prompts)]:
        assert ours._is_math_query(prompt) == stock._is_math_query(prompt)


@relied_on_by("estimators.py")
def test_of_a_text_only_some_words_are_keywords_or_important() -> None:
    stock, ours = QueryResponseAlignmentScorer(), Alignment()
    words = ["the", "it", "ai", "AI.", "sky,", '("blue")', "2+2?", "U.S.", "x²", "don't", "-low"]
    words += [
        "What",
        "Paris",
        "statistics,",
        "greenhouse",
        "²",
        "a" * 8 + "!",
        "a1",
        "ßtraße",
        "...",
    ]
    texts = [" ".join(pair) for pair in combinations([*words, *words], 2)]
    texts += [" ".join(words[first:]) for first in range(len(words))]
    for text in texts:
        assert ours._extract_keywords(text) == stock._extract_keywords(text), text
        for response in (words[0], "The sky. AI", "Blue AI in Paris, 2+2 statistics", text):
            asked = text.lower(), response.lower()
            found = ours._analyze_keyword_coverage_enhanced(*asked)
            assert found == stock._analyze_keyword_coverage_enhanced(*asked), asked
            important = ours._analyze_important_words(text, response)
            assert important == stock._analyze_important_words(text, response), (text, response)


@relied_on_by("estimators.py")
def test_of_a_draft_only_phrases_sums_code_and_lists_make_a_chain_of_reasoning() -> None:
    stock, ours = QueryResponseAlignmentScorer(), Alignment()
    phrases = strings(QueryResponseAlignmentScorer._detect_reasoning_chain.__code__.co_consts[1:])
    pairs = combinations(sorted({*phrases, "3 + 4 = 7 = 7", "```this code"}), 2)
    drafts = [f"{'It goes on. ' * 9}{one} {other} {one}" for one, other in pairs]
    for mark in ("1. a", "2) a", "- a", "* a", "• a", "plain"):
        drafts += [f"{'It goes on. ' * 9}{f'{end}{mark}' * 4}" for end in ("\n", " ", "\r", "\r\n")]
    drafts += [draft.upper() for draft in drafts] + [draft[-90:] for draft in drafts]
    found = [ours._detect_reasoning_chain(draft) for draft in drafts]
    assert found == [stock._detect_reasoning_chain(draft) for draft in drafts]
    assert {bool(each) for each in found} == {True, False}


@pytest.mark.parametrize("pattern", letters.NEEDED)
@settings(deadline=None)
@given(data=st.data())
@relied_on_by("letters.py")
def test_what_a_pattern_matches_has_its_letters(pattern: str, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(re.compile(pattern, re.MULTILINE)))
    assert letters.NEEDED[pattern] in text


@relied_on_by("letters.py")
def test_a_draft_is_searched_for_the_patterns_whose_letters_are_known() -> None:
    stock, ours = ProductionConfidenceEstimator("openai"), _Estimator("openai")
    validator = _Validator(QualityConfig(), Difficulty(), Alignment())
    methods = stock._analyze_semantic_quality, QualityValidator._is_code_response
    known = {*letters.NEEDED} & set().union(*(strings(each.__code__.co_consts) for each in methods))
    assert known == {*letters.NEEDED}
    words = ["yes", "no", "true", "false", "correct", "incorrect", "can", "cannot", "yesterday"]
    marks = ["\\", "\n\\ss", "def\\w", "class\\s", "def f(x):", "```"]
    for pair in combinations([*words, *marks, ""], 2):
        draft = f"{'.'.join(pair)}, it seems"
        quality = stock._analyze_semantic_quality(draft)
        assert ours._analyze_semantic_quality(draft) == quality, draft
        for prompt in ("What is it?", "Write a function"):
            code = QualityValidator._is_code_response(draft, prompt)
            assert validator._is_code_response(draft, prompt) == code, draft


@relied_on_by("routing.py")
def test_a_classification_is_asked_for_with_an_instruction() -> None:
    stock, ours = TaskDetector(), _TaskDetector()
    marks = [*stock.CLASSIFICATION_INSTRUCTIONS, *stock.LIST_MARKERS, *stock.OUTPUT_FORMAT_MARKERS]
    kinds = set()
    for pair in combinations(marks, 2):
        prompt = f"{' '.join(pair)}: {'- one' * 2}"
        assert ours.detect(prompt) == stock.detect(prompt), prompt
        kinds.add(ours.detect(prompt).task_type)
    assert len(kinds) == 2


@relied_on_by("routing.py")
def test_math_is_told_by_latex_patterns_and_single_symbols_outside_ascii() -> None:
    detector, told = ComplexityDetector(), Models()  # type: ignore[no-untyped-call]
    detector.compiled_latex_patterns = []
    told.watch(detector, "_detect_math_notation")
    detector.detect("".join(map(chr, range(128))) + r" \frac a∑∑∫")
    assert sorted(told.judged[0]["found"]) == ["∑", "∫"]


@relied_on_by("config.py")
def test_a_strictness_has_thresholds_of_its_own_for_five_complexities_and_uses_them() -> None:
    for one, other in ((make(), make()) for make in STRICTNESS.values()):
        assert one.enable_adaptive
        assert set(one.confidence_thresholds) == set(get_args(Complexity))
        assert one.confidence_thresholds is not other.confidence_thresholds


@relied_on_by("config.py")
def test_a_draft_needs_the_threshold_of_its_complexity_but_at_least_a_simple_ones() -> None:
    models = Models()
    for hint in ("trivial", "simple", "moderate"):
        run(cascade(models, {"trivial": 0.3, "simple": 0.6, "moderate": 0.8}), complexity_hint=hint)
    assert [judged["threshold_override"] for judged in models.judged] == [0.6, 0.6, 0.8]


@relied_on_by("routing.py")
def test_thresholds_move_only_by_what_is_recorded_of_accepted_drafts() -> None:
    models, recorded = Models(), []
    agent, thresholds = cascade(models), AdaptiveThreshold({"simple": 0.7})
    agent.cascade.adaptive_threshold = thresholds
    thresholds.record = lambda *each, **_: recorded.append(each)  # type: ignore[method-assign]
    for _ in range(30):
        run(agent)
    assert [judged["threshold_override"] for judged in models.judged] == [0.7] * len(recorded)


@relied_on_by("exchange.py")
def test_what_the_judge_found_tells_later_of_a_forced_escalation() -> None:
    run(cascade(models := Models(0.1)), "", messages=[{"role": "user", "content": HARD}] * 2)
    assert models.judged[0]["found"].reason.startswith("forced_escalation")


@relied_on_by("routing.py")
def test_the_validator_has_its_analyzer_tell_the_risk_of_hallucinations() -> None:
    judge, told = cascade(Models()).cascade.quality_validator, Models()
    told.watch(judge.analyzer, "detect_hallucinations")
    for text, risk in ((DRAFT, "low"), ("It is WELL-known that exactly 5% agree.", "high")):
        fine = judge.validate(text, "Tell me", 0.9, "simple", 0.4).checks["low_hallucination_risk"]
        assert (told.judged[-1]["found"]["risk_level"], fine) == (risk, risk == "low")


@pytest.mark.parametrize("provider", get_args(Provider))
@relied_on_by("provider.py")
def test_the_estimator_knows_any_provider_and_takes_any_sound_logprob(provider: str) -> None:
    estimator = ProductionConfidenceEstimator(provider)
    shown: Options = {"response": DRAFT, "query": SIMPLE, "temperature": 0.3, "metadata": {}}
    for logprobs in (None, [IMPOSSIBLE, -0.1], [VANISHING + 1], [CERTAIN]):
        found = estimator.estimate(**shown, logprobs=logprobs, tokens=["a"] if logprobs else None)
        assert 0 < found.final_confidence <= 1, found.method_used


@relied_on_by("routing.py")
def test_nothing_grows_with_queries_but_what_telemetry_records_and_the_tool_router() -> None:
    agent = cascade(Models())
    agent.telemetry.record = lambda **_: None  # type: ignore[method-assign]
    seen: list[dict[str, int]] = []
    for times in (210, 10):
        for options in [*ROUTES.values()] * times:
            run(agent, **options)
        seen.append({name: weight(part, set()) for name, part in vars(agent).items()})
    assert {name for name in seen[0] if seen[1][name] > seen[0][name]} <= {"tool_router"}


@relied_on_by("routing.py")
def test_all_it_logs_is_below_one_name_and_nothing_is_printed(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for level, names in ((logging.DEBUG, {"cascadeflow"}), (logging.CRITICAL, set())):
        caplog.clear()
        with caplog.at_level(logging.DEBUG, "cascadeflow"):
            logging.getLogger("cascadeflow").setLevel(level)
            run(cascade(Models(drafter=FAULT, verifier=FAULT)))
        assert {record.name.partition(".")[0] for record in caplog.records} == names
    assert capsys.readouterr() == ("", "")
