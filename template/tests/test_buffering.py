"""A buffered stream: nothing is sent that may be withdrawn."""

import asyncio
from collections.abc import Sequence

import pytest

from app.cascade.buffering import buffered
from app.cascade.types import Event

CASCADE = Event("routing", data={"strategy": "cascade"})
DIRECT = Event("routing", data={"strategy": "direct"})
ACCEPTED = Event("draft_decision", data={"accepted": True})
REJECTED = Event("draft_decision", data={"accepted": False})
SWITCH = Event("switch", data={"discard": 2})
COMPLETE = Event("complete")
ERROR = Event("error")


def chunk(text: str) -> Event:
    return Event("chunk", text)


def sent(*events: Event, verifier_stands: bool = True) -> list[str]:
    """What is sent of these events, chunks as their text."""

    return [event.content or event.type for event in passed_on(events, verifier_stands)]


def passed_on(events: Sequence[Event], verifier_stands: bool) -> list[Event]:
    found: list[Event] = []

    async def emit(event: Event) -> None:
        found.append(event)

    async def tell() -> None:
        told = buffered(emit, verifier_stands=verifier_stands)
        for event in events:
            await told(event)

    asyncio.run(tell())
    return found


def test_an_accepted_draft_comes_after_its_verdict() -> None:
    assert sent(CASCADE, chunk("a"), chunk("b"), ACCEPTED, COMPLETE) == [
        "routing",
        "draft_decision",
        "ab",
        "complete",
    ]


def test_a_rejected_draft_never_comes() -> None:
    events = (CASCADE, chunk("no"), REJECTED, SWITCH, chunk("yes"), COMPLETE)
    assert sent(*events) == ["routing", "draft_decision", "switch", "yes", "complete"]


def test_there_is_nothing_to_discard() -> None:
    found = passed_on((CASCADE, chunk("no"), REJECTED, SWITCH), True)
    (switch,) = (event for event in found if event.type == "switch")
    assert switch.data["discard"] == 0


@pytest.mark.parametrize("stands", [False, True])
def test_a_direct_answer_comes_as_it_is_made(stands: bool) -> None:
    events = (DIRECT, chunk("a"), ERROR)
    assert sent(*events, verifier_stands=stands) == ["routing", "a", "error"]


@pytest.mark.parametrize("end", [COMPLETE, ERROR])
def test_a_verifier_that_may_be_withdrawn_is_held_to_the_end(end: Event) -> None:
    events = (CASCADE, chunk("no"), REJECTED, SWITCH, chunk("yes"), end)
    text = ["yes"] if end is COMPLETE else []
    assert sent(*events, verifier_stands=False) == [
        "routing",
        "draft_decision",
        "switch",
        *text,
        end.type,
    ]


def test_a_draft_that_comes_back_replaces_the_verifier() -> None:
    back = Event("switch", data={"discard": 1})
    events = (CASCADE, chunk("draft"), REJECTED, SWITCH, chunk("y"), back, chunk("draft"), COMPLETE)
    assert sent(*events, verifier_stands=False)[-2:] == ["draft", "complete"]
