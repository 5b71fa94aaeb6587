"""What the cascade does with answers, failures, budgets and deadlines; cascadeflow decides."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from app import runtime
from app.cascade import pricing
from app.cascade.config import load
from app.cascade.engine import Engine
from app.cascade.errors import (
    BudgetExceeded,
    CascadeError,
    ContextExceeded,
    DeadlineExceeded,
    NotReady,
    UpstreamFailed,
)
from app.cascade.exchange import CURRENT
from app.cascade.routing import Router
from app.cascade.types import Answer, Event, Json, Message, Query, Usage
from app.ledger import ANYONE, Entry, Ledger, Totals
from app.settings import Settings
from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    Answering,
    Background,
    Stub,
    answer_json,
    answer_text,
    cascade_toml,
    ledger_in_memory,
)

ENOUGH = Decimal(10)


@dataclass
class Asked:
    """What became of one query."""

    answer: Answer | None = None
    error: Exception | None = None
    events: list[Event] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    totals: Totals | None = None

    @property
    def fact(self) -> Answer:
        assert self.answer, self.error
        return self.answer

    @property
    def types(self) -> list[str]:
        """The types of the events, with neighbours of one type as one."""
        types = [event.type for event in self.events]
        return [each for before, each in zip([None, *types], types, strict=False) if each != before]

    @property
    def text(self) -> str:
        """What a client shows in the end, if it discards what it is told to."""
        shown = ""
        for event in self.events:
            if event.type == "switch":
                discard = event.data["discard"]
                assert isinstance(discard, int)
                shown = shown[: len(shown) - discard]
            if event.type == "chunk":
                shown += event.content
        return shown


Ask = Callable[..., Asked]


@dataclass
class Running:
    """An engine, its ledger, and the entries that it has told its observers of."""

    engine: Engine
    ledger: Ledger
    entries: list[Entry]

    async def ask(self, query: Query, *, stream: bool) -> Asked:
        self.entries.clear()
        asked = Asked()
        try:
            if stream:
                async with self.engine.open(query) as events:
                    asked.events = [event async for event in events]
                asked.answer, asked.error = asked.events[-1].answer, asked.events[-1].error
            else:
                asked.answer = await self.engine.ask(query)
        except CascadeError as error:
            asked.error = error
        asked.entries = list(self.entries)
        asked.totals = await self.ledger.totals()
        return asked


@asynccontextmanager
async def running(settings: Settings, budget: Decimal = ENOUGH) -> AsyncIterator[Running]:
    entries: list[Entry] = []
    ledger = ledger_in_memory(budget)
    models = runtime.configure(settings)
    async with runtime.running(settings, models, ledger, [entries.append]) as engine:
        yield Running(engine, ledger, entries)


@pytest.fixture(scope="module")
def shared(background: Background, make_settings: Callable[..., Settings]) -> Iterator[Running]:
    """An engine for every question that needs none of its own."""
    manager = running(make_settings(request_deadline_seconds=5))
    yield background.run(manager.__aenter__())
    background.run(manager.__aexit__(None, None, None))


@pytest.fixture
def ask(shared: Running, background: Background, make_settings: Callable[..., Settings]) -> Ask:
    """Asks for an answer or a `stream`; with a budget or settings, an engine of its own."""

    def asking(
        query: Query | str,
        *,
        stream: bool = False,
        budget: Decimal | None = None,
        **settings: object,
    ) -> Asked:
        asked = Query.ask(query) if isinstance(query, str) else query
        if budget is None and not settings:
            return background.run(shared.ask(asked, stream=stream))

        async def go() -> Asked:
            async with running(make_settings(**settings), budget or ENOUGH) as own:
                return await own.ask(asked, stream=stream)

        return background.run(go())

    return asking


@pytest.fixture
def cascade_of(tmp_path: Path, simulator_url: str) -> Callable[..., Path]:
    """A `cascade.toml` of one's own; the simulator where no upstream is given."""

    def write(
        drafter: str = simulator_url, verifier: str = simulator_url, *, more: str = ""
    ) -> Path:
        path = tmp_path / "cascade.toml"
        path.write_text(cascade_toml(drafter, verifier, more=more), encoding="utf-8")
        return path

    return write


# --- what cascadeflow decides ---------------------------------------------------------------------


def test_a_good_draft_is_the_answer(ask: Ask) -> None:
    answer = ask(ACCEPTED).fact
    assert answer.model_used == "simulator-small"
    assert (answer.cascaded, answer.draft_accepted) == (True, True)
    assert answer.outcome == "accepted"


def test_a_poor_draft_is_replaced_by_the_verifiers_answer(ask: Ask) -> None:
    answer = ask(REJECTED).fact
    assert answer.model_used == "simulator-large"
    assert (answer.cascaded, answer.draft_accepted) == (True, False)
    assert "not sure" not in answer.content
    assert answer.outcome == "rejected"


@pytest.mark.parametrize("query", [Query.ask(DIRECT), Query.ask(ACCEPTED, force_direct=True)])
def test_a_direct_question_has_no_draft_to_judge(ask: Ask, query: Query) -> None:
    answer = ask(query).fact
    assert answer.model_used == "simulator-large"
    assert (answer.cascaded, answer.draft_accepted) == (False, None)
    assert answer.outcome == "direct"


@pytest.mark.parametrize(
    "text",
    [
        ACCEPTED,
        REJECTED,
        DIRECT,
        "Why is the sky blue?",
        "Design a URL shortener",
        "[[drafter:500]] What is AI?",
        "[[drafter:empty]] What is AI?",
        "[[both:nousage]] What is AI?",
    ],
)
def test_a_stream_comes_to_the_same_as_an_answer(ask: Ask, text: str) -> None:
    whole, streamed = ask(text).fact, ask(text, stream=True).fact
    assert streamed.content == whole.content
    assert streamed.model_used == whole.model_used
    assert streamed.draft_accepted == whole.draft_accepted
    assert streamed.reason == whole.reason
    assert streamed.cost == whole.cost


def test_verdicts_do_not_drift_with_traffic(make_settings: Callable[..., Settings]) -> None:
    async def reasons() -> set[str]:
        async with running(make_settings()) as own:
            return {(await own.engine.ask(Query.ask(ACCEPTED))).reason for _ in range(45)}

    assert len(asyncio.run(reasons())) == 1


def test_thresholds_of_ones_own_are_heeded(ask: Ask, cascade_of: Callable[..., Path]) -> None:
    levels = ("trivial", "simple", "moderate", "hard", "expert")
    more = f"thresholds = {{{', '.join(f'{level} = 1' for level in levels)}}}"
    text = "Explain quantum computing in simple terms"
    assert ask(text).fact.outcome == "accepted"
    assert ask(text, cascade_file=cascade_of(more=more)).fact.outcome == "rejected"


@pytest.mark.parametrize("strictness", ["careful", "strict"])
def test_every_strictness_works(ask: Ask, cascade_of: Callable[..., Path], strictness: str) -> None:
    path = cascade_of(more=f'strictness = "{strictness}"')
    assert ask(REJECTED, cascade_file=path).fact.outcome == "rejected"


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "types"),
    [
        (ACCEPTED, ["routing", "chunk", "draft_decision", "complete"]),
        (REJECTED, ["routing", "chunk", "draft_decision", "switch", "chunk", "complete"]),
        (DIRECT, ["routing", "chunk", "complete"]),
        ("[[drafter:500]] hi", ["routing", "draft_decision", "switch", "chunk", "complete"]),
        (
            "[[drafter:cut]] hi",
            ["routing", "chunk", "draft_decision", "switch", "chunk", "complete"],
        ),
        ("[[both:500]] hi", ["routing", "draft_decision", "switch", "error"]),
        (f"[[verifier:cut]] {DIRECT}", ["routing", "chunk", "error"]),
    ],
)
def test_a_stream_tells_what_happens_and_how_it_ends(ask: Ask, text: str, types: list[str]) -> None:
    assert ask(text, stream=True).types == types


@pytest.mark.parametrize("text", [ACCEPTED, REJECTED, DIRECT, "[[drafter:cut]] What is AI?"])
def test_what_a_client_shows_in_the_end_is_the_answer(ask: Ask, text: str) -> None:
    asked = ask(text, stream=True)
    assert asked.text == asked.fact.content


def test_chunks_say_whose_they_are(ask: Ask) -> None:
    chunks = [event.data for event in ask(REJECTED, stream=True).events if event.type == "chunk"]
    said = {(chunk["phase"], chunk["model"]) for chunk in chunks}
    assert said == {("draft", "simulator-small"), ("verifier", "simulator-large")}


def test_leaving_a_stream_stops_the_upstream_and_settles(
    make_settings: Callable[..., Settings],
) -> None:
    async def go() -> None:
        async with running(make_settings()) as own:
            async with own.engine.open(Query.ask("[[both:slow]] What is AI?")) as events:
                while (await anext(events)).type != "chunk":
                    pass
            (entry,) = own.entries
            assert entry.outcome == "cancelled"
            assert entry.cost > 0
            await own.ledger.reserve(ENOUGH - entry.cost)

    asyncio.run(go())


def test_nothing_is_read_while_the_client_has_not_taken_what_came_before(
    make_settings: Callable[..., Settings],
) -> None:
    at_once, most = 0, 0

    async def emit(event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        told.append(event)

    told: list[Event] = []

    async def go() -> None:
        async with running(make_settings()) as own:
            await own.engine.tell(Query.ask(ACCEPTED), ANYONE, emit)

    asyncio.run(go())
    assert most == 1
    assert [told[0].type, told[-1].type] == ["routing", "complete"]
    answer = told[-1].answer
    assert answer
    assert "".join(event.content for event in told if event.type == "chunk") == answer.content


def test_a_stream_left_before_its_first_event_holds_no_money(
    make_settings: Callable[..., Settings],
) -> None:
    async def go() -> None:
        async with running(make_settings()) as own:
            async with own.engine.open(Query.ask(ACCEPTED)):
                pass
            spent = (await own.ledger.totals()).spent_today
            await own.ledger.reserve(ENOUGH - spent)

    asyncio.run(go())


# --- failures -------------------------------------------------------------------------------------

FAULTS = ["400", "401", "404", "429", "500", "503", "garbage", "html", "empty", "nochoices", "cut"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_verifier_answers_when_the_drafter_fails(ask: Ask, fault: str, stream: bool) -> None:
    answer = ask(f"[[drafter:{fault}]] What is AI?", stream=stream).fact
    assert answer.model_used == "simulator-large"
    assert answer.content
    assert answer.outcome == "rejected"
    assert answer.reason.startswith("the drafter failed: ")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rejected_draft_is_no_answer_when_the_verifier_fails(
    ask: Ask, fault: str, stream: bool
) -> None:
    asked = ask(f"[[drafter:poor]] [[verifier:{fault}]] What is AI?", stream=stream)
    assert asked.answer is None
    assert isinstance(asked.error, UpstreamFailed)
    assert asked.error.model == "simulator-large"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["401", "500", "empty", "garbage"])
@pytest.mark.parametrize("text", ["What is AI?", DIRECT])
def test_no_answer_is_invented_when_both_fail(
    ask: Ask, text: str, fault: str, stream: bool
) -> None:
    assert isinstance(ask(f"[[both:{fault}]] {text}", stream=stream).error, UpstreamFailed)


def test_a_failure_says_what_the_last_model_said(ask: Ask) -> None:
    failed = ask("[[drafter:500]] [[verifier:429]] What is AI?").error
    assert isinstance(failed, UpstreamFailed)
    assert (failed.fault.kind, failed.fault.status) == ("overloaded", 429)
    assert failed.fault.retry_after == 1


def test_a_drafter_that_is_left_alone_does_not_stop_the_verifier(
    make_settings: Callable[..., Settings],
) -> None:
    async def models_used() -> set[str]:
        async with running(make_settings(breaker_failures=2)) as own:
            query = Query.ask("[[drafter:500]] What is AI?")
            return {(await own.engine.ask(query)).model_used for _ in range(8)}

    assert asyncio.run(models_used()) == {"simulator-large"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_drafter_that_hangs_leaves_the_verifier_time_to_answer(ask: Ask, stream: bool) -> None:
    text = "[[drafter:hang]] What is AI?"
    answer = ask(text, stream=stream, request_deadline_seconds=2).fact
    assert answer.model_used == "simulator-large"
    assert answer.reason == "the drafter failed: timeout"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("text", ["[[both:hang]] hi", f"[[verifier:hang]] {DIRECT}"])
def test_the_deadline_holds_when_the_verifier_hangs(ask: Ask, text: str, stream: bool) -> None:
    asked = ask(text, stream=stream, request_deadline_seconds=0.05)
    assert isinstance(asked.error, DeadlineExceeded)


@pytest.mark.parametrize("failure", ["error", "draft"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_draft_that_was_not_judged_in_time_is_no_answer(
    ask: Ask,
    cascade_of: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
    stream: bool,
) -> None:
    async def judge(*_: object) -> None:
        await CURRENT.get().call("drafter")
        await asyncio.sleep(10)

    monkeypatch.setattr(Router, "run", judge)
    path = cascade_of(more=f'on_verifier_failure = "{failure}"')
    query = replace(Query.ask(ACCEPTED), deadline=2)
    asked = ask(query, stream=stream, cascade_file=path)
    assert isinstance(asked.error, DeadlineExceeded)
    assert [entry.outcome for entry in asked.entries] == ["failed"]


def test_a_fault_of_our_own_ends_a_stream_with_an_error(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Engine, "_answer", fail)
    asked = ask(ACCEPTED, stream=True)
    assert asked.events[-1].type == "error"
    assert isinstance(asked.error, ZeroDivisionError)


# --- money ----------------------------------------------------------------------------------------


def test_an_accepted_draft_costs_what_the_drafter_charges(
    ask: Ask, cascade_of: Callable[..., Path], stub: Callable[[Answering], Stub]
) -> None:
    usage: Json = {"prompt_tokens": 1000, "completion_tokens": 100}
    drafter = stub(
        answer_json({"choices": [said("AI is the study of thinking machines.")], "usage": usage})
    )
    answer = ask(ACCEPTED, cascade_file=cascade_of(drafter.url)).fact
    assert answer.outcome == "accepted"
    assert answer.usage == Usage(1000, 100)
    assert answer.cost == Decimal("0.00021")
    assert answer.baseline_cost == Decimal("0.0035")
    assert answer.saved == Decimal("0.00329")


def test_a_rejected_draft_is_paid_for_as_well(
    ask: Ask, cascade_of: Callable[..., Path], stub: Callable[[Answering], Stub]
) -> None:
    usage: Json = {"prompt_tokens": 1000, "completion_tokens": 100}
    drafter = stub(answer_json({"choices": [said("I don't know, maybe.")], "usage": usage}))
    verifier = stub(answer_json({"choices": [said("It scatters.")], "usage": usage}))
    path = cascade_of(drafter.url, verifier.url)
    answer = ask("Why is the sky blue?", cascade_file=path).fact
    assert answer.outcome == "rejected"
    assert answer.cost == Decimal("0.00371")
    assert answer.saved == Decimal("-0.00021")


def test_a_direct_answer_saves_nothing(ask: Ask) -> None:
    answer = ask(DIRECT).fact
    assert answer.saved == 0
    assert answer.cost > 0


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_nobody_reported_are_estimated_and_marked(ask: Ask, stream: bool) -> None:
    answer = ask("[[both:nousage]] What is AI?", stream=stream).fact
    assert answer.usage.estimated
    assert answer.cost > 0


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (ACCEPTED, "accepted"),
        (REJECTED, "rejected"),
        (DIRECT, "direct"),
        ("[[both:500]] hi", "failed"),
        ("[[both:hang]] hi", "failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_every_query_is_in_the_books_once(ask: Ask, text: str, outcome: str, stream: bool) -> None:
    deadline = {"request_deadline_seconds": 0.05} if "hang" in text else {"budget": ENOUGH}
    asked = ask(text, stream=stream, **deadline)
    assert [entry.outcome for entry in asked.entries] == [outcome]
    assert asked.totals
    assert asked.totals.by_outcome == {outcome: 1}
    assert asked.totals.spent_today == asked.entries[0].cost


@pytest.mark.parametrize("stream", [False, True])
def test_a_query_that_could_break_the_budget_reaches_no_model(
    ask: Ask, cascade_of: Callable[..., Path], stub: Callable[[Answering], Stub], stream: bool
) -> None:
    upstream = stub(answer_json({}))
    path = cascade_of(upstream.url, upstream.url)
    asked = ask(ACCEPTED, stream=stream, budget=Decimal("0.0001"), cascade_file=path)
    assert isinstance(asked.error, BudgetExceeded)
    assert upstream.received == []


def test_a_query_never_costs_more_than_was_reserved_for_it(ask: Ask, cascade_file: Path) -> None:
    query = Query.ask(f"{REJECTED} 中文 🙂", max_tokens=20)
    models = load(cascade_file).models
    worst = pricing.worst_case(query, (models["small"], models["large"]))
    assert ask(query, budget=worst).fact.cost <= worst


# --- the wire, end to end -------------------------------------------------------------------------


def said(text: str) -> Json:
    return {"message": {"content": text}, "delta": {"content": text}, "finish_reason": "stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_both_models_get_the_conversation_with_its_roles(
    ask: Ask, cascade_of: Callable[..., Path], stub: Callable[[Answering], Stub], stream: bool
) -> None:
    body: Json = {"choices": [said("I'm not sure, maybe.")]}
    answering = answer_text(f"data: {json.dumps(body)}\n\n") if stream else answer_json(body)
    drafter, verifier = stub(answering), stub(answering)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why is the sky blue?"},
    ]
    messages = tuple(Message(turn["role"], turn["content"]) for turn in turns)  # type: ignore[arg-type]
    path = cascade_of(drafter.url, verifier.url)
    assert ask(Query(messages), stream=stream, cascade_file=path).fact.outcome == "rejected"
    assert [request.body["messages"] for request in drafter.received] == [turns]
    assert [request.body["messages"] for request in verifier.received] == [turns]


@pytest.mark.parametrize("stream", [False, True])
def test_each_model_has_its_own_endpoint_and_key(
    ask: Ask,
    stub: Callable[[Answering], Stub],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    body: Json = {"choices": [said("I'm not sure, maybe.")]}
    answering = answer_text(f"data: {json.dumps(body)}\n\n") if stream else answer_json(body)
    drafter, verifier = stub(answering), stub(answering)
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(drafter.url, verifier.url, keys=True), encoding="utf-8")
    monkeypatch.setenv("DRAFTER_KEY", "sk-drafter")
    monkeypatch.setenv("VERIFIER_KEY", "sk-verifier")
    ask("Why is the sky blue?", stream=stream, cascade_file=path)
    seen = [
        (request.body["model"], request.headers["authorization"])
        for request in drafter.received + verifier.received
    ]
    assert seen == [
        ("simulator-small", "Bearer sk-drafter"),
        ("simulator-large", "Bearer sk-verifier"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_secret_is_logged_when_everything_fails(
    ask: Ask,
    stub: Callable[[Answering], Stub],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[str],
    stream: bool,
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500, text="upstream-says-something")

    upstream = stub(refuse)
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url, keys=True), encoding="utf-8")
    monkeypatch.setenv("DRAFTER_KEY", "sk-drafter")
    monkeypatch.setenv("VERIFIER_KEY", "sk-verifier")
    asked = ask("A secret question", stream=stream, cascade_file=path)
    told = "\n".join([*logged, str(asked.error), repr(asked.error)])
    for secret in ("secret question", "sk-drafter", "sk-verifier", "127.0.0.1", "upstream-says"):
        assert secret not in told


@pytest.mark.parametrize(("table", "outcome"), [("small", "direct"), ("large", None)])
def test_a_prompt_goes_to_a_model_that_it_fits_or_to_none(
    ask: Ask, cascade_of: Callable[..., Path], table: str, outcome: str | None
) -> None:
    path = cascade_of()
    tables = re.split(r"(?m)^(?=\[)", path.read_text(encoding="utf-8"))
    shrunk = [
        re.sub(r"context = .*", "context = 1000", each) if f"simulator-{table}" in each else each
        for each in tables
    ]
    path.write_text("".join(shrunk), encoding="utf-8")
    asked = ask("What is AI? " * 300, cascade_file=path)
    if outcome:
        assert asked.fact.outcome == outcome
    else:
        assert isinstance(asked.error, ContextExceeded)
        assert asked.totals is not None
        assert asked.totals.queries == 0


# --- the service stops ----------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_in_flight_when_the_time_is_up_is_told_and_settled(
    background: Background, make_settings: Callable[..., Settings], stream: bool
) -> None:
    async def go() -> tuple[Asked, list[int]]:
        async with running(make_settings()) as place:
            hanging = Query.ask("[[both:hang]] hi")
            asking = asyncio.create_task(place.ask(hanging, stream=stream))
            await asyncio.sleep(0.1)
            counts = [place.engine.in_flight]
            place.engine.abandon()
            await asyncio.wait_for(place.engine.idle(), 2)
            return await asking, [*counts, place.engine.in_flight]

    asked, counts = background.run(go())
    assert isinstance(asked.error, NotReady)
    assert [entry.outcome for entry in asked.entries] == ["failed"]
    assert counts == [1, 0]


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_refuses_finishes_what_it_has(
    background: Background, make_settings: Callable[..., Settings], stream: bool
) -> None:
    async def go() -> Asked:
        async with running(make_settings()) as place:
            query = Query.ask(f"[[drafter:slow]] {ACCEPTED}", max_tokens=2)
            asking = asyncio.create_task(place.ask(query, stream=stream))
            await asyncio.sleep(0.1)
            place.engine.refuse()
            with pytest.raises(NotReady):
                await place.engine.ask(query)
            return await asking

    asked = background.run(go())
    assert asked.fact.outcome == "accepted"


# --- what observers are told ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_entry_says_what_became_of_each_call(ask: Ask, stream: bool) -> None:
    asked = ask("[[drafter:500]] What is AI?", stream=stream, upstream_attempts=2)
    (entry,) = asked.entries
    draft, answer = entry.calls
    assert (draft.role, draft.answered, draft.faults) == ("drafter", False, ("unavailable",) * 2)
    assert (answer.role, answer.answered, answer.faults) == ("verifier", True, ())
    assert draft.began <= answer.began
    assert draft.seconds + answer.seconds <= entry.latency_ms / 1000
    assert answer.usage == entry.usage
    assert entry.queued_ms >= 0
    assert (entry.first_text_ms is not None) == stream
