"""cascadeflow's estimators, without doing for one query what is done already.

Its confidence estimate and its validator each have a pair of them, which read the same texts.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cascadeflow.quality.alignment_scorer import QueryResponseAlignmentScorer
from cascadeflow.quality.query_difficulty import QueryDifficultyEstimator

from app.cascade.linear import PatternSet, Uncompiled
from app.cascade.questions import Question

AHEAD = 256
"""Estimates, made while drafters think: of so many queries at once none is made twice."""
KEPT = 4
"""Scores: both ask before another query has its turn."""
SHORT = 3
"""Words of a response whose own keywords cascadeflow asks for."""
LIST_ENDS = 2
"""Line ends, at least, of a list that counts as reasoning: it has three lines."""
EDGES = ".,!?;:\"'()[]{}"
"""What it takes from both ends of a word."""
KINDS = ("SYNTHETIC_PATTERNS", "ANALYTICAL_PATTERNS", "EXPLANATORY_PATTERNS", "FACTUAL_PATTERNS")


class Difficulty(QueryDifficultyEstimator):
    """Looks only for those phrases that one pass has found."""

    def __init__(self) -> None:
        super().__init__()
        phrases = [(kind, phrase) for kind in KINDS for phrase in getattr(self, kind)]
        self._phrases = phrases
        self._set = PatternSet([Uncompiled(rf"\b{re.escape(phrase)}\b") for _, phrase in phrases])
        self._estimate = lru_cache(AHEAD)(super().estimate)

    def estimate(self, query: str, verbose: bool = False) -> float:
        return self._estimate(query, verbose)

    def _analyze_question_type_calibrated(self, query_lower: str) -> float:
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for number in sorted(self._set.found_in(query_lower)):
            kind, phrase = self._phrases[number]
            found[kind].append(phrase)
        for kind, phrases in found.items():
            setattr(self, kind, phrases)
        return super()._analyze_question_type_calibrated(query_lower)


class Alignment(QueryResponseAlignmentScorer):
    """Scores a draft once."""

    def __init__(self) -> None:
        super().__init__()
        reasoning = Question(QueryResponseAlignmentScorer, "_detect_reasoning_chain", ["=", "```"])
        self._marks = PatternSet([reasoning.pattern])
        self._unread: str | None = None
        # It says that it returns a number, and with `verbose` does not.
        self._analyze: Callable[..., Any] = lru_cache(KEPT)(super().score)

    def score(
        self, query: str, response: str, query_difficulty: float = 0.5, verbose: bool = False
    ) -> float:
        analysis = self._analyze(query, response, query_difficulty, True)
        score: float = analysis if verbose else analysis.alignment_score
        return score

    def _analyze_keyword_coverage_enhanced(
        self, query_lower: str, response_lower: str
    ) -> tuple[float, bool]:
        """The keywords of a response matter only if it is short: all are looked for in its text."""
        short = len(response_lower.split(maxsplit=SHORT)) <= SHORT
        self._unread = None if short else response_lower
        return super()._analyze_keyword_coverage_enhanced(query_lower, response_lower)

    def _extract_keywords(self, text: str) -> set[str]:
        """A word counts once, wherever it stands; most have no digit or sign within."""
        if text is self._unread:
            return set()
        words = {word.strip(EDGES) for word in set(text.lower().split())} - self.stopwords
        plain = {word for word in words if len(word) > 2 and word.isalpha()}
        return plain | super()._extract_keywords(" ".join(words - plain))

    def _analyze_important_words(self, query: str, response: str) -> float:
        """Short words in lower case, without a digit, are never important."""
        words = query.split()
        plain = {
            word
            for word in set(words)
            if len(word) <= 8 and word.islower() and (word.isalpha() or word.strip(EDGES).isalpha())
        }
        told = " ".join([word for word in words if word not in plain])
        return super()._analyze_important_words(told, response)

    def _detect_reasoning_chain(self, response: str) -> float:
        """There is no chain without a phrase of one, a sum, a block of code or a list of lines."""
        if response.count("\n") < LIST_ENDS and not self._marks.found_in(response.lower()):
            return 0.0
        return super()._detect_reasoning_chain(response)

    def _generate_reasoning(self, *_: object) -> str:
        """Nobody reads it."""
        return ""
