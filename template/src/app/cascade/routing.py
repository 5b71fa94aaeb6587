"""cascadeflow's agent, set up for a server: its verdicts, without its state, logs or books."""

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property

from cascadeflow.agent import CascadeAgent
from cascadeflow.core.cascade import SpeculativeResult, WholeResponseCascade
from cascadeflow.quality.complexity import ComplexityDetector, QueryComplexity
from cascadeflow.quality.quality import (
    AdaptiveThreshold,
    QualityConfig,
    QualityValidator,
    ResponseAnalyzer,
    ValidationResult,
)
from cascadeflow.quality.tool_validator import ToolQualityScore, ToolQualityValidator
from cascadeflow.routing.task_detector import TaskDetectionResult, TaskDetector
from cascadeflow.schema.config import ModelConfig
from cascadeflow.schema.result import CascadeResult
from cascadeflow.telemetry.collector import MetricsCollector

from app.cascade import letters, questions, view
from app.cascade.borrowed import borrowed
from app.cascade.config import ActiveCascade
from app.cascade.estimators import Alignment, Difficulty
from app.cascade.exchange import CURRENT, Judgement
from app.cascade.linear import Late, PatternSet, Uncompiled, linearize
from app.cascade.provider import CascadeProvider
from app.cascade.types import Query

FACTOID_WORDS = 8
"""cascadeflow takes no longer question for one that a word or two can answer."""
PRICES = ("$", "dollar", "cent")
MATH = questions.Question(QualityValidator, "_is_math_query").phrases
STRICTNESS: Mapping[str, Callable[[], QualityConfig]] = {
    "balanced": QualityConfig.for_cascade,
    "careful": QualityConfig.for_production,
    "strict": QualityConfig.strict,
}


class Router:
    """Lets cascadeflow decide who answers the exchange that is `CURRENT`."""

    def __init__(self, models: ActiveCascade) -> None:
        # Its records hold prompts, and each failed call's would hold the upstream's address.
        logging.getLogger("cascadeflow").setLevel(logging.CRITICAL)
        self._agent = _agent(models)

    async def run(self, query: Query) -> None:
        """Route the query, draft, judge and escalate; what comes of it is in the exchange."""
        text, messages = view.of_conversation(query.messages)
        # With tools cascadeflow would not heed `force_direct`; the upstream gets them all the same.
        tools = None if query.force_direct else [*query.tools] or None
        await self._agent.run(
            text,
            messages=messages,
            max_tokens=query.max_tokens,
            temperature=query.temperature,
            force_direct=query.force_direct,
            tools=tools,
            # More would call tools by itself, with answers that it makes up.
            max_steps=1,
        )


class _Detector(ComplexityDetector):
    _compile = borrowed(ComplexityDetector.__init__, re=Late)

    def __init__(self) -> None:
        self._compile()
        self._narrow = linearize(self)
        # With a space or a hyphen it is looked for as a pattern.
        self._words = {term for term in self.all_technical_terms if not {*term} & {*" -"}}

    def detect(
        self, query: str, context: dict[str, object] | None = None, return_metadata: bool = False
    ) -> tuple[QueryComplexity, float] | tuple[QueryComplexity, float, dict[str, object]]:
        exchange = CURRENT.get()
        messages = exchange.query.messages
        whole = messages[0].content if len(messages) == 1 else query
        text = whole[: view.DETECTED_CHARS]
        lower = text.lower()
        # The forms in which it is searched.
        self._narrow({text, lower, lower.strip()})
        found = super().detect(text, context, return_metadata)
        exchange.complexity = found[0].value
        return found

    def _detect_technical_terms(self, query_lower: str) -> tuple[list[str], dict[str, float]]:
        self.all_technical_terms = self._words.intersection(query_lower.split())
        phrases = [each for each in self._compiled_multi_terms if each[0] in query_lower]
        self._compiled_multi_terms = phrases
        # Without a phrase in it, these words are all that is looked for.
        return super()._detect_technical_terms(
            query_lower if phrases else " ".join(self.all_technical_terms)
        )

    def _detect_math_notation(self, query: str) -> list[str]:
        """Each symbol once: cascadeflow looks every single one up in the list of those found."""
        symbols = ""
        if not query.isascii():
            symbols = "".join(char for char in set(query) if not char.isascii())
        latex = (found for each in self.compiled_latex_patterns for found in each.findall(query))
        return list({*super()._detect_math_notation(symbols), *latex})


def _no_validator(**_: object) -> None:
    """`_agent` puts ours in its place."""


class _Cascade(WholeResponseCascade):
    """Makes no detector and no validator: it is told what was detected, and given ours."""

    __init__ = borrowed(
        WholeResponseCascade.__init__, COMPLEXITY_AVAILABLE=False, QualityValidator=_no_validator
    )


class _Agent(CascadeAgent):
    """Notes why it routed a query as it did; of the rest the exchange knows more."""

    _assemble = borrowed(
        CascadeAgent.__init__, ComplexityDetector=_Detector, WholeResponseCascade=_Cascade
    )

    def __init__(self, models: list[ModelConfig], quality: QualityConfig) -> None:
        self._assemble(models, quality)

    def _build_cascade_result(self, *_: object, **told: object) -> CascadeResult:
        CURRENT.get().reason = str(told["routing_reason"])
        return _RESULT


class _TaskDetector(TaskDetector):
    @cached_property
    def _nothing(self) -> TaskDetectionResult:
        return super()._detect_classification("", "")

    def _detect_classification(self, query: str, query_lower: str) -> TaskDetectionResult:
        """Without an instruction to classify, no mark of a list and no format is looked for."""
        if any(each in query_lower for each in self.CLASSIFICATION_INSTRUCTIONS):
            return super()._detect_classification(query, query_lower)
        return self._nothing


class _Analyzer(ResponseAnalyzer):
    """Its patterns for hallucinations take quadratic time on a draft such as "but but but"."""

    @staticmethod
    def detect_hallucinations(content: str) -> dict[str, object]:
        suspicious = len(_HALLUCINATIONS.found_in(content))
        risk = "high" if suspicious >= 2 else "medium" if suspicious == 1 else "low"
        return {"suspicious_patterns": suspicious, "risk_level": risk}


_HALLUCINATIONS = PatternSet(
    [Uncompiled(each, re.IGNORECASE) for each in ResponseAnalyzer.HALLUCINATION_PATTERNS]
)


class _Validator(QualityValidator):
    # The cascade hands it each threshold: what it would learn is never asked for.
    _configure = borrowed(
        QualityValidator.__init__, COMPLEXITY_AVAILABLE=False, ADAPTIVE_AVAILABLE=False
    )

    def __init__(self, config: QualityConfig, difficulty: Difficulty, alignment: Alignment) -> None:
        self._configure(config)
        self.analyzer = _Analyzer()
        self.difficulty_estimator = difficulty
        self.alignment_scorer = alignment

    def validate(
        self,
        draft_content: str,
        query: str,
        confidence: float,
        complexity: str | None = None,
        threshold_override: float | None = None,
    ) -> ValidationResult:
        result = super().validate(draft_content, query, confidence, complexity, threshold_override)
        CURRENT.get().judged(confidence, result)
        return result

    _is_code_response = staticmethod(letters.first(QualityValidator._is_code_response))

    @staticmethod
    def _is_math_query(query: str) -> bool:
        """Of a prompt without a price its phrases tell, and the search for prices takes long."""
        lower = query.lower()
        if any(mark in lower for mark in PRICES):
            return QualityValidator._is_math_query(query)
        return QualityValidator._is_math_query(next((each for each in MATH if each in lower), ""))

    @staticmethod
    def _is_short_factoid_query(query: str) -> bool:
        """Of a long question it would split every word to count them."""
        short = len(query.split(maxsplit=FACTOID_WORDS)) <= FACTOID_WORDS
        return short and QualityValidator._is_short_factoid_query(query)


class _ToolValidator(ToolQualityValidator):
    def validate_tool_calls(
        self,
        tool_calls: list[dict[str, object]],
        available_tools: list[dict[str, object]],
        complexity_level: object = None,
    ) -> ToolQualityScore:
        result = super().validate_tool_calls(tool_calls, available_tools, complexity_level)
        reason = "; ".join(result.issues) or "valid tool calls"
        CURRENT.get().judged(0.9, Judgement(result.overall_score, reason))
        return result


class _FixedThresholds(AdaptiveThreshold):
    """Thresholds that do not drift with the traffic of one worker."""

    def record(
        self, draft_confidence: float, actual_quality: float, complexity: str = "simple"
    ) -> None:
        pass


class _NoTelemetry(MetricsCollector):
    """Its lists grow with every query; the ledger keeps the service's own books."""

    def record(self, *_: object, **__: object) -> None:
        pass


# Nobody reads or changes them: one of each does for all queries.
_RESULT = CascadeResult("", "", 0.0, 0.0, "", False, False, "", "")
_SPECULATIVE_RESULT = SpeculativeResult("", "", "", "", False, 0.0, 0.0, 0.0, 0.0, 1.0, "", {})


def _no_costs(*_: object, **__: object) -> dict[str, float]:
    """What was spent is in the exchange."""
    return {"total_cost": 0.0, "cost_saved": 0.0}


def _no_result(*_: object, **__: object) -> SpeculativeResult:
    """What was said is in the exchange too."""
    return _SPECULATIVE_RESULT


def _agent(models: ActiveCascade) -> CascadeAgent:
    quality = STRICTNESS[models.strictness]()
    for complexity, needed in models.thresholds.items():
        quality.confidence_thresholds[complexity] = needed
    quality.log_decisions = quality.log_details = False
    # cascadeflow drafts with its cheapest model and verifies with its dearest: the roles, always.
    agent = _Agent(
        [
            ModelConfig("drafter", provider="custom", cost=1.0),
            ModelConfig("verifier", provider="custom", cost=2.0),
        ],
        quality,
    )
    difficulty, alignment = Difficulty(), Alignment()
    provider = CascadeProvider(models, difficulty, alignment)
    agent.model_providers = {"drafter": provider, "verifier": provider}
    agent.router.task_detector = _TaskDetector()
    agent.telemetry = _NoTelemetry()
    # It averages these lists, which grow with every query that has tools.
    agent.tool_router.stats["models_before_filter"] = deque(maxlen=0)
    agent.tool_router.stats["models_after_filter"] = deque(maxlen=0)
    agent.cascade.model_providers = agent.model_providers
    agent.cascade._calculate_costs = _no_costs  # type: ignore[method-assign]
    agent.cascade._create_result = _no_result  # type: ignore[method-assign]
    validator = _Validator(quality, difficulty, alignment)
    agent.cascade.quality_validator = validator
    agent.cascade.tool_quality_validator = _ToolValidator()
    thresholds = AdaptiveThreshold if models.adaptive else _FixedThresholds
    agent.cascade.adaptive_threshold = thresholds(dict(quality.confidence_thresholds))
    questions.ask_sparingly(questions.of(alignment, validator, provider.estimator))
    return agent
