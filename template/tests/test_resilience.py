"""When a failed call is tried again, and when a model is left alone."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from app import runtime
from app.cascade.errors import CascadeError, DeadlineExceeded, FaultKind, UpstreamFault
from app.cascade.resilience import Breaker, Retries
from app.cascade.types import Event, Query
from app.ledger import ANYONE
from app.settings import Settings
from tests.conftest import (
    Answering,
    Stub,
    answer_json,
    answer_text,
    cascade_toml,
    ledger_in_memory,
    speak,
)

ANSWER = {"choices": [{"message": {"content": "Four."}, "finish_reason": "stop"}]}
DIRECTLY = Query.ask("What is 2+2?", force_direct=True)


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        ("unreachable", True),
        ("timeout", True),
        ("overloaded", True),
        ("unavailable", True),
        ("refused", False),
        ("malformed", False),
        ("empty", False),
        ("interrupted", False),
        ("open", False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(kind: FaultKind, again: bool) -> None:
    assert (Retries(attempts=2).wait(UpstreamFault(kind), 1, 60) is not None) == again


def test_the_last_try_is_the_last() -> None:
    assert Retries(attempts=3).wait(UpstreamFault("timeout"), 3, 60) is None


def test_retry_after_is_kept_to() -> None:
    assert Retries().wait(UpstreamFault("overloaded", 429, 7.0), 1, 60) == 7.0


def test_a_wait_that_outlasts_the_deadline_is_not_begun() -> None:
    assert Retries().wait(UpstreamFault("overloaded", 429, 7.0), 1, 6.9) is None


def test_waits_grow_up_to_a_longest() -> None:
    retries = Retries(attempts=100, first_wait=1, longest_wait=3)
    waits = [retries.wait(UpstreamFault("timeout"), 90, 60) or 0 for _ in range(200)]
    assert max(waits) <= 3
    assert len(set(waits)) > 100


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker(failures: int) -> tuple[Breaker, Clock]:
    """One that opens at 3 for 10 seconds and has seen so many."""
    clock = Clock()
    made = Breaker(threshold=3, rest=10, clock=clock)
    for _ in range(failures):
        made.failed(UpstreamFault("unavailable", 500))
    return made, clock


def is_open(made: Breaker) -> bool:
    try:
        made.check()
    except UpstreamFault as fault:
        return fault.kind == "open"
    return False


def test_a_model_that_fails_again_and_again_is_left_alone() -> None:
    assert not is_open(breaker(2)[0])
    assert is_open(breaker(3)[0])


def test_an_answer_forgets_the_failures_before_it() -> None:
    made, _ = breaker(2)
    made.succeeded()
    made.failed(UpstreamFault("timeout"))
    assert not is_open(made)


@pytest.mark.parametrize("kind", ["refused", "overloaded", "empty", "open"])
def test_what_a_request_causes_says_nothing_of_the_model(kind: FaultKind) -> None:
    made, _ = breaker(2)
    made.failed(UpstreamFault(kind))
    assert not is_open(made)


@pytest.mark.parametrize(("status", "counts"), [(408, False), (504, True)])
def test_a_status_below_500_is_never_counted(status: int, counts: bool) -> None:
    made, _ = breaker(2)
    made.failed(UpstreamFault("timeout", status))
    assert is_open(made) is counts


def test_it_says_when_the_model_is_tried_again() -> None:
    made, clock = breaker(3)
    clock.now = 4
    with pytest.raises(UpstreamFault) as fault:
        made.check()
    assert fault.value.retry_after == 6


def test_after_its_rest_one_call_tries_the_model() -> None:
    made, clock = breaker(3)
    clock.now = 10
    assert not is_open(made)
    assert is_open(made)


def test_a_good_trial_closes_it() -> None:
    made, clock = breaker(3)
    clock.now = 10
    made.check()
    made.succeeded()
    assert not is_open(made)


@pytest.mark.parametrize("kind", ["refused", "overloaded", "empty"])
def test_a_trial_that_says_nothing_of_the_model_is_followed_by_another(kind: FaultKind) -> None:
    made, clock = breaker(3)
    clock.now = 10
    made.check()
    made.failed(UpstreamFault(kind))
    assert not is_open(made)
    assert is_open(made)
    made.abandoned()
    assert not is_open(made)


def test_a_call_from_before_its_rest_does_not_end_it() -> None:
    made, _ = breaker(3)
    made.abandoned()
    assert is_open(made)


def test_a_bad_trial_leaves_it_open_for_another_rest() -> None:
    made, clock = breaker(3)
    clock.now = 10
    made.check()
    made.failed(UpstreamFault("timeout"))
    clock.now = 19
    assert is_open(made)


# --- in the engine --------------------------------------------------------------------------------

Ask = Callable[..., list[str | None]]


@pytest.fixture
def ask(make_settings: Callable[..., Settings], tmp_path: Path) -> Ask:
    """Asks one engine several times; the answers, None for those that failed."""

    def asking(
        upstream: Stub,
        *,
        times: int = 1,
        stream: bool = False,
        provider: str = "openai",
        query: Query = DIRECTLY,
        drafter: Stub | None = None,
        **settings: object,
    ) -> list[str | None]:
        path = tmp_path / "cascade.toml"
        text = cascade_toml((drafter or upstream).url, upstream.url)
        path.write_text(text.replace('"openai"', f'"{provider}"'), encoding="utf-8")
        chosen = make_settings(cascade_file=path, **settings)

        async def go() -> list[str | None]:
            models, ledger = runtime.configure(chosen), ledger_in_memory(Decimal(10))
            async with runtime.running(chosen, models, ledger) as engine:
                answers: list[str | None] = []
                for _ in range(times):
                    if stream:
                        async with engine.open(query) as events:
                            last = [event async for event in events][-1]
                        answers.append(last.answer.content if last.answer else None)
                        continue
                    try:
                        answers.append((await engine.ask(query)).content)
                    except CascadeError:
                        answers.append(None)
                return answers

        return asyncio.run(go())

    return asking


def in_turn(*answers: Answering) -> Answering:
    """Answers one after the other, the last for ever."""
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def test_a_failed_call_is_tried_again(ask: Ask, stub: Callable[[Answering], Stub]) -> None:
    busy = answer_json({}, 429, **{"Retry-After": "0.01"})
    upstream = stub(in_turn(busy, busy, answer_json(ANSWER)))
    assert ask(upstream, upstream_attempts=3) == ["Four."]
    assert len(upstream.received) == 3


def test_tries_end(ask: Ask, stub: Callable[[Answering], Stub]) -> None:
    upstream = stub(answer_json({}, 429, **{"Retry-After": "0.01"}))
    assert ask(upstream, upstream_attempts=2) == [None]
    assert len(upstream.received) == 2


def test_what_a_client_has_been_sent_is_not_said_again(
    ask: Ask, stub: Callable[[Answering], Stub]
) -> None:
    upstream = stub(anthropic_stream({"type": "text_delta", "text": "Fo"}))
    assert ask(upstream, stream=True, provider="anthropic", upstream_attempts=3) == [None]
    assert len(upstream.received) == 1


def test_what_has_not_begun_can_be_said_again(ask: Ask, stub: Callable[[Answering], Stub]) -> None:
    upstream = stub(anthropic_stream())
    assert ask(upstream, stream=True, provider="anthropic", upstream_attempts=2) == [None]
    assert len(upstream.received) == 2


def anthropic_stream(*deltas: dict[str, str]) -> Answering:
    """A stream that says so much and then that its model is overloaded, a fault that may pass."""
    events = [{"type": "content_block_delta", "delta": delta} for delta in deltas]
    error = {"type": "error", "error": {"type": "overloaded_error"}}
    return answer_text("".join(f"data: {json.dumps(event)}\n\n" for event in [*events, error]))


def test_a_dead_model_is_not_asked_for_ever(ask: Ask, stub: Callable[[Answering], Stub]) -> None:
    upstream = stub(answer_json({}, 500))
    assert ask(upstream, times=5, breaker_failures=2) == [None] * 5
    assert len(upstream.received) == 2


def test_a_call_counts_once_however_often_it_was_tried(
    ask: Ask, stub: Callable[[Answering], Stub]
) -> None:
    upstream = stub(answer_json({}, 503))
    ask(upstream, times=3, breaker_failures=2, upstream_attempts=2)
    assert len(upstream.received) == 4


def test_requests_that_are_refused_close_no_model_to_others(
    ask: Ask, stub: Callable[[Answering], Stub]
) -> None:
    upstream = stub(answer_json({}, 400))
    ask(upstream, times=5, breaker_failures=2)
    assert len(upstream.received) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_drafter_is_left_alone_and_the_verifier_is_not(
    ask: Ask, stub: Callable[[Answering], Stub], stream: bool
) -> None:
    drafter, verifier = stub(answer_json({}, 500)), stub(speak("Four."))
    query = Query.ask("What is 2+2?")
    answers = ask(
        verifier, drafter=drafter, query=query, times=4, stream=stream, breaker_failures=1
    )
    assert answers == ["Four."] * 4
    assert len(drafter.received) == 1


async def hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(10)
    raise NotImplementedError


@pytest.mark.parametrize("query", [Query.ask("hi"), DIRECTLY], ids=["both", "direct"])
def test_a_model_that_hangs_is_left_alone(
    ask: Ask, stub: Callable[[Answering], Stub], query: Query
) -> None:
    upstream = stub(hang)
    ask(upstream, query=query, times=2, breaker_failures=1, request_deadline_seconds=2)
    assert len(upstream.received) == (1 if query.force_direct else 2)


@pytest.mark.parametrize("query", [Query.ask("hi"), DIRECTLY], ids=["both", "direct"])
def test_a_client_in_a_hurry_closes_no_model_to_others(
    ask: Ask, stub: Callable[[Answering], Stub], query: Query
) -> None:
    upstream = stub(hang)
    ask(upstream, query=replace(query, deadline=2), times=2, breaker_failures=1)
    assert len(upstream.received) == (2 if query.force_direct else 4)


@pytest.mark.parametrize("query", [Query.ask("hi"), DIRECTLY], ids=["both", "direct"])
def test_a_client_that_does_not_read_closes_no_model_to_others(
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    stub: Callable[[Answering], Stub],
    query: Query,
) -> None:
    upstream = stub(speak("Four."))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    chosen = make_settings(cascade_file=path, breaker_failures=1, request_deadline_seconds=2)
    errors: list[Exception | None] = []

    async def emit(event: Event) -> None:
        if event.type == "chunk":
            await asyncio.Event().wait()
        if event.type == "error":
            errors.append(event.error)

    async def go() -> Decimal:
        models, ledger = runtime.configure(chosen), ledger_in_memory(Decimal(10))
        async with runtime.running(chosen, models, ledger) as engine:
            for _ in range(2):
                await engine.tell(query, ANYONE, emit)
            return (await ledger.totals()).spent_today

    assert asyncio.run(go()) > 0
    assert [type(error) for error in errors] == [DeadlineExceeded] * 2
    assert len(upstream.received) == (2 if query.force_direct else 4)
