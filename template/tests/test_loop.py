"""Hostile text is answered, and its analysis is bounded: no request holds up the event loop.

A clock would tell only on an idle machine, so what is read is counted. cascadeflow's patterns run
on RE2, which reads each text once, whatever it is, or on Python, which may read a text again and
again: that is short, without long runs, and no longer for however long a question or answer.
"""

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal

import httpx
import pytest

from app.cascade import linear, view
from app.cascade.config import activate, load
from app.cascade.engine import Engine
from app.cascade.routing import Router
from app.cascade.types import Answer, Completion, Message, Query
from app.cascade.upstream import OnText
from tests.conftest import CASCADE, ledger_in_memory

SHAPES = [
    *("combine with ", "a", "QUJDRGVm+/09", "https://example.com/", "分析这个问题", "1", "1 + "),
    *("$5 ", "{", '{"name": ', "\n", "\n x", "x" + " " * 50, "\nA) ", "f(", "but ", "first "),
    *("reasoning: ", "AaBb", "a_b ", "- tool: x\n", "User: hi\n", "∑", "\\frac{", "Why? "),
]
TURNS = 11
MOST_READ = 100 * view.QUERY_CHARS
"""Characters, by all of Python's patterns together: 80 or so, of some hundreds that there are."""
PASSES = 8
"""Of RE2 over one text: as it is and in lower case, as a question and as an answer."""
LONG_RUN = re.compile(r"\d{70}|\s{70}|\w{300}")
REPEATED = re.compile(r"(\.|\\[wdS]|\\s\\S\])[*+]")
"""Part of a pattern that could match almost any text, in many ways."""

SIMULATED = activate(load(CASCADE), simulated=True)
WIDE = SIMULATED.verifier.model_copy(update={"context": 10**7})
MODELS = replace(SIMULATED, drafter=WIDE, verifier=WIDE)


def hostile(shape: str, size: int) -> str:
    """So many characters; a letter at each end, since blanks there do not count."""
    return f"a{(shape * (size // len(shape) + 1))[: size - 2]}z"


def question(place: str, text: str) -> Query:
    if place == "answer":
        return Query.ask("What is AI?")
    if place == "query":
        return Query.ask(text)
    step = len(text) // TURNS
    parts = [text[at * step : (at + 1) * step] + "z" for at in range(TURNS)]
    turns = [Message("assistant" if at % 2 else "user", part) for at, part in enumerate(parts)]
    return Query(tuple(turns))


@dataclass
class Read:
    """What patterns were given to read."""

    by_python: list[str] = field(default_factory=list)
    by_re2: list[str] = field(default_factory=list)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """All that cascadeflow's patterns read from now on, of engines that are made from now on."""
    found = Read()

    def noting(function: Callable[..., object], position: int) -> Callable[..., object]:
        def note(*given: object, **named: object) -> object:
            asks = str(sys._getframe(1).f_globals["__name__"])
            if asks.startswith(("cascadeflow.", "app.cascade.letters")):
                found.by_python.append(str(given[position]))
            return function(*given, **named)

        return note

    for name in ("search", "match", "fullmatch", "split", "findall", "finditer", "sub"):
        monkeypatch.setattr(re, name, noting(getattr(re, name), 2 if name == "sub" else 1))
    found_in = linear.PatternSet.found_in

    def note_re2(self: linear.PatternSet, text: str) -> frozenset[int]:
        found.by_re2.append(text)
        return found_in(self, text)

    monkeypatch.setattr(linear.PatternSet, "found_in", note_re2)
    return found


@dataclass
class Says:
    """An upstream without a wire, whose only answer is a text."""

    text: str

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        return Completion(self.text, "stop", None)

    async def reach(self) -> None:
        return None


def ask(place: str, text: str) -> Answer:
    says = Says(text if place == "answer" else "AI is the study of thinking machines.")

    async def asked() -> Answer:
        engine = Engine(
            MODELS, {"drafter": says, "verifier": says}, ledger_in_memory(Decimal(10**6)), 60
        )
        return await engine.ask(question(place, text))

    return asyncio.run(asked())


@pytest.mark.parametrize("place", ["query", "history", "answer"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_read_of_hostile_text_is_bounded(read: Read, shape: str, place: str) -> None:
    for size in (2_000, 20_000, 100_000):
        read.by_python.clear()
        read.by_re2.clear()
        assert ask(place, hostile(shape, size)).content
        assert max(map(len, read.by_python), default=0) <= view.ANSWER_CHARS
        assert sum(map(len, read.by_python)) <= MOST_READ
        assert not [text[:99] for text in read.by_python if LONG_RUN.search(text)]
        assert max(map(len, read.by_re2)) <= view.DETECTED_CHARS
        assert len(read.by_re2) <= PASSES


def test_patterns_that_could_read_a_text_again_and_again_run_on_re2() -> None:
    held = vars(Router(MODELS)._agent.complexity_detector).values()
    left = [pattern.pattern for value in held for pattern in linear._patterns(value)]
    assert 0 < len(left) < 20
    assert not [pattern for pattern in left if REPEATED.search(pattern)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hostile_query_is_answered_or_refused_by_its_name(
    client: httpx.Client, shape: str
) -> None:
    assert client.post("/api/query", json={"query": hostile(shape, 2_000)}).status_code == 200
    refused = client.post("/api/query", json={"query": hostile(shape, 20_000)})
    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == ["query"]
