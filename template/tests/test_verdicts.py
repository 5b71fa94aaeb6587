"""Every verdict is cascadeflow's own, although the engine shows it a view and answers for it fast.

`verdicts.jsonl` holds what the library decides on a corpus of questions and drafts when nothing of
ours is in between; `record_verdicts.py` wrote it and says how to write it anew.
"""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from importlib.metadata import version
from itertools import pairwise

import pytest
from cascadeflow.quality.complexity import ComplexityDetector
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cascade.config import ActiveCascade, activate, load
from app.cascade.engine import Engine
from app.cascade.routing import STRICTNESS
from app.cascade.types import Completion, Query, Role, Usage
from app.cascade.upstream import OnText, Upstream
from tests import record_verdicts
from tests.conftest import CASCADE, ledger_in_memory
from tests.record_verdicts import LOGPROBS, VERIFIED, Case, Verdict

VERSION, CASES = record_verdicts.read()
SAMPLE = CASES[::6]
NEW_RELEASE = (
    f"cascadeflow {version('cascadeflow')} decides otherwise than {VERSION}, with which"
    " tests/verdicts.jsonl was recorded: look at the changes, then `python -m"
    " tests.record_verdicts`, and set the range in pyproject.toml"
)


class Scripted:
    """An upstream without a wire: it answers what it was told to."""

    def __init__(self) -> None:
        self.completion = Completion(VERIFIED, "stop", Usage(10, 10))

    async def answer(self, query: Query, on_text: OnText | None = None) -> Completion:
        return self.completion

    async def reach(self) -> None:
        return None


def our_verdicts(cases: Sequence[Case], models: ActiveCascade) -> list[Verdict]:
    """What the engine decides on each case."""
    drafter = Scripted()
    upstreams: dict[Role, Upstream] = {"drafter": drafter, "verifier": Scripted()}

    async def decide() -> list[Verdict]:
        engine = Engine(models, upstreams, ledger_in_memory(Decimal(10**6)), deadline=60)
        verdicts = []
        for case in cases:
            drafter.completion = case.completion
            answer = await engine.ask(case.query)
            assert answer.content == (case.draft if answer.draft_accepted else VERIFIED)
            found = answer.decision
            verdicts.append(
                Verdict(
                    answer.outcome,
                    answer.complexity,
                    found.confidence if found else None,
                    found.score if found else None,
                    answer.reason,
                )
            )
        return verdicts

    return asyncio.run(decide())


def differences(
    cases: Sequence[Case], found: Sequence[Verdict], wanted: Sequence[Verdict | None]
) -> list[str]:
    """A line for each verdict that is another one; the last digits of numbers do not count."""
    return [
        f"{case.topic}: {case.ask!r:.60} <- {case.draft!r:.40}: {one}, not {other}"
        for case, one, other in zip(cases, found, wanted, strict=True)
        if other is None or _rounded(one) != _rounded(other)
    ]


def _rounded(verdict: Verdict) -> Verdict:
    numbers = {
        name: None if number is None else round(number, 9)
        for name, number in (("confidence", verdict.confidence), ("score", verdict.score))
    }
    return dataclasses.replace(verdict, **numbers)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def models() -> ActiveCascade:
    return activate(load(CASCADE), simulated=True)


def test_the_corpus_is_varied() -> None:
    outcomes = Counter(case.verdict.outcome for case in CASES if case.verdict)
    complexities = Counter(case.verdict.complexity for case in CASES if case.verdict)
    assert len(CASES) >= 500
    assert len({str(case.ask) for case in CASES}) >= 200
    assert min(outcomes[each] for each in ("accepted", "rejected", "direct")) >= 40, outcomes
    assert len(complexities) == 5, complexities
    assert len({case.topic for case in CASES}) >= 30


def test_the_engine_decides_as_cascadeflow_does(models: ActiveCascade) -> None:
    recorded = [case.verdict for case in CASES]
    different = differences(CASES, our_verdicts(CASES, models), recorded)
    assert not different, "\n".join(different)


PIECES = sorted({piece for case in CASES for piece in f"{case.ask} {case.draft}".split()})
TEXTS = st.lists(
    st.sampled_from(PIECES) | st.text(max_size=12) | st.sampled_from(["\n", "\n\n", "\t", "  "]),
    min_size=1,
    max_size=60,
).map(" ".join)
TURNS = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "system"]), TEXTS), min_size=1, max_size=3
)
ASKED = TEXTS | st.tuples(TURNS, TEXTS).map(lambda told: [*map(list, told[0]), ["user", told[1]]])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.builds(
            Case,
            st.just("any"),
            ASKED,
            TEXTS.filter(str.strip),
            st.sampled_from(sorted(LOGPROBS)),
            st.floats(0, 2),
        ),
        min_size=10,
        max_size=10,
    )
)
def test_it_does_so_whatever_is_asked_and_answered(
    models: ActiveCascade, cases: list[Case]
) -> None:
    stock = asyncio.run(record_verdicts.stock_verdicts(cases, STRICTNESS["balanced"]()))
    different = differences(cases, our_verdicts(cases, models), stock)
    assert not different, "\n".join(different)


def test_each_technical_term_counts_as_much_as_for_cascadeflow(models: ActiveCascade) -> None:
    stock = ComplexityDetector()  # type: ignore[no-untyped-call]
    terms = sorted(stock.all_technical_terms)
    asks = [f"Explain {term} and the {other}" for term, other in pairwise(terms)]
    cases = [Case("terms", ask, "It is a thing.", "fair") for ask in asks]
    wanted = [stock.detect(ask)[0].value for ask in asks]
    assert len(terms) > 100
    assert [each.complexity for each in our_verdicts(cases, models)] == wanted


@pytest.mark.parametrize("words", range(5, 12))
def test_a_short_question_is_as_short_as_for_cascadeflow(words: int, models: ActiveCascade) -> None:
    ask = " ".join(["Who", *["ever"] * (words - 3), "was", "first?"])
    cases = [Case("short", ask, draft, "fair") for draft in ("Neil", "Neil Armstrong.", "A man")]
    stock = asyncio.run(record_verdicts.stock_verdicts(cases, STRICTNESS["balanced"]()))
    assert not differences(cases, our_verdicts(cases, models), stock)


def test_cascadeflow_still_decides_as_it_did() -> None:
    stock = asyncio.run(record_verdicts.stock_verdicts(SAMPLE, STRICTNESS["balanced"]()))
    different = differences(SAMPLE, stock, [case.verdict for case in SAMPLE])
    assert not different, "\n".join([NEW_RELEASE, *different])


def test_the_record_is_of_a_release_that_the_project_supports() -> None:
    assert VERSION.split(".")[:2] == version("cascadeflow").split(".")[:2], NEW_RELEASE


@pytest.mark.parametrize("strictness", ["careful", "strict"])
def test_the_other_strictnesses_are_cascadeflows_too(
    strictness: str, models: ActiveCascade
) -> None:
    ours = our_verdicts(
        SAMPLE,
        dataclasses.replace(models, strictness=strictness),  # type: ignore[arg-type]
    )
    stock = asyncio.run(record_verdicts.stock_verdicts(SAMPLE, STRICTNESS[strictness]()))
    assert not differences(SAMPLE, ours, stock)


def test_thresholds_of_ones_own_are_thresholds_of_cascadeflow(models: ActiveCascade) -> None:
    quality = STRICTNESS["balanced"]()
    quality.confidence_thresholds.update(simple=0.75, moderate=0.75)
    stock = asyncio.run(record_verdicts.stock_verdicts(SAMPLE, quality))
    own = dataclasses.replace(models, thresholds={"simple": 0.75, "moderate": 0.75})
    ours = our_verdicts(SAMPLE, own)
    assert not differences(SAMPLE, ours, stock)
    assert differences(SAMPLE, ours, [case.verdict for case in SAMPLE]), "they have no effect"
