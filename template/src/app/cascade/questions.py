"""cascadeflow's questions whether a prompt is of some kind, asked where the answer can be yes.

Each looks for phrases of its own, one after the other. RE2 looks for those of all in one pass.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cascadeflow.quality.alignment_scorer import QueryResponseAlignmentScorer
from cascadeflow.quality.confidence import ProductionConfidenceEstimator
from cascadeflow.quality.quality import QualityValidator

from app.cascade.linear import PatternSets

Ask = Callable[..., bool]
KEPT = 2
"""Prompts: all questions about one are asked before another query has its turn."""
FORMATS = (
    "function_call",
    "intent_classification",
    "long_context_qa",
    "roleplay",
    "extraction",
    "multi_turn_conversation",
)


@dataclass(frozen=True, slots=True)
class Question:
    """A method of cascadeflow's whose last argument is the prompt."""

    holder: object
    name: str
    more: Sequence[str] = ()
    """Phrases that stand in no list within its code."""

    @property
    def ask(self) -> Ask:
        asked: Ask = getattr(self.holder, self.name)
        return asked

    @property
    def phrases(self) -> list[str]:
        """At least one of them is in a prompt of the kind, in lower case."""
        # Lists that are written out in a function are tuples among the constants of its code.
        listed = [each for each in self.ask.__code__.co_consts if isinstance(each, tuple)]
        return [*_texts(listed), *self.more]


def of(
    alignment: QueryResponseAlignmentScorer,
    validator: QualityValidator,
    estimator: ProductionConfidenceEstimator,
) -> list[Question]:
    """What these ask about a draft's prompt."""
    return [
        *(Question(alignment, f"_is_{kind}_format") for kind in FORMATS),
        Question(alignment, "_is_mcq_format", ["answer"]),
        Question(validator, "_is_creative_query"),
        Question(validator, "_is_classification_response"),
        Question(estimator, "_is_creative_query"),
    ]


def ask_sparingly(questions: Sequence[Question]) -> None:
    """Replace the methods by ones that say the same."""
    patterns = [re.compile("|".join(map(re.escape, each.phrases))) for each in questions]
    sets = PatternSets(patterns)

    @lru_cache(KEPT)
    def found_in(prompt: str) -> frozenset[re.Pattern[str]]:
        return sets.found_in(prompt.lower())

    for question, pattern in zip(questions, patterns, strict=True):
        setattr(question.holder, question.name, _sparing(question.ask, pattern, found_in))


def _sparing(
    ask: Ask, pattern: re.Pattern[str], found_in: Callable[[str], frozenset[re.Pattern[str]]]
) -> Ask:
    def answer(*about: str) -> bool:
        return pattern in found_in(about[-1]) and ask(*about)

    return answer


def _texts(constants: Iterable[object]) -> list[str]:
    found: list[str] = []
    for each in constants:
        if isinstance(each, tuple):
            found += _texts(each)
        elif isinstance(each, str):
            found.append(each)
    return found
