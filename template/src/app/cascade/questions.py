"""cascadeflow's questions whether a prompt is of some kind, asked where the answer can be yes.

Each looks for phrases of its own, one after the other. RE2 looks for those of all in one pass.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from cascadeflow.quality.alignment_scorer import QueryResponseAlignmentScorer
from cascadeflow.quality.confidence import ProductionConfidenceEstimator
from cascadeflow.quality.quality import QualityValidator

from app.cascade.linear import FoundIn, PatternSet, Uncompiled
from app.values import value

Ask = Callable[..., bool]
AHEAD = 256
"""Prompts, read while drafters think: of so many queries at once none is read twice."""
FORMATS = (
    "function_call",
    "intent_classification",
    "long_context_qa",
    "roleplay",
    "extraction",
    "multi_turn_conversation",
)


@value
class Question:
    """A method of cascadeflow's about its last argument, a prompt or a draft."""

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
        """At least one of them is in a text of the kind, in lower case."""
        # Lists that are written out in a function are tuples among the constants of its code.
        listed = [each for each in self.ask.__code__.co_consts if isinstance(each, tuple)]
        return [*_texts(listed), *self.more]

    @property
    def pattern(self) -> Uncompiled:
        """Any of the phrases."""
        return Uncompiled("|".join(map(re.escape, self.phrases)))


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
    patterns = PatternSet([each.pattern for each in questions])

    @lru_cache(AHEAD)
    def found_in(prompt: str) -> frozenset[int]:
        return patterns.found_in(prompt.lower())

    for number, question in enumerate(questions):
        setattr(question.holder, question.name, _sparing(question.ask, number, found_in))


def _sparing(ask: Ask, number: int, found_in: FoundIn) -> Ask:
    def answer(*about: str) -> bool:
        return number in found_in(about[-1]) and ask(*about)

    return answer


def _texts(constants: Iterable[object]) -> list[str]:
    found: list[str] = []
    for each in constants:
        if isinstance(each, tuple):
            found += _texts(each)
        elif isinstance(each, str):
            found.append(each)
    return found
