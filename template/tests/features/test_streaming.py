"""`/api/query/stream`: events while the answer is made, an end to every stream."""

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from app.cascade.engine import Engine
from app.features import streaming
from tests.conftest import (
    ACCEPTED,
    DIRECT,
    REJECTED,
    TLS,
    Answering,
    Leave,
    Serve,
    Stub,
    cascade_toml,
    client_of,
    eventually,
    key_and_entry,
)
from tests.faults import PLACES
from tests.served import Served, served

PATH = "/api/query/stream"


def parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


def stream(client: httpx.Client, query: str, **fields: object) -> list[dict[str, Any]]:
    body = {"query": query, **fields}
    with client.stream("POST", PATH, json=body) as response:
        assert response.status_code == 200
        return list(parsed(response.iter_lines()))


def types(events: list[dict[str, Any]]) -> list[str]:
    """The types of the events, with neighbours of one type as one."""
    names = [event["type"] for event in events]
    return [name for before, name in zip([None, *names], names, strict=False) if name != before]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ACCEPTED, "routing chunk draft_decision complete"),
        (REJECTED, "routing chunk draft_decision switch chunk complete"),
        (DIRECT, "routing chunk complete"),
        ("[[both:500]] hi", "routing draft_decision switch error"),
        (f"[[verifier:cut]] {DIRECT}", "routing chunk error"),
    ],
)
def test_a_stream_has_a_beginning_and_an_end(
    client: httpx.Client, query: str, expected: str
) -> None:
    assert types(stream(client, query)) == expected.split()


def test_every_event_has_type_content_and_data(client: httpx.Client) -> None:
    assert {frozenset(event) for event in stream(client, REJECTED)} == {
        frozenset({"type", "content", "data"})
    }


def test_the_chunks_of_an_accepted_draft_are_the_answer(client: httpx.Client) -> None:
    events = stream(client, ACCEPTED)
    chunks = [event["content"] for event in events if event["type"] == "chunk"]
    assert len(chunks) > 3
    assert "".join(chunks) == events[-1]["content"]


def test_what_is_left_after_discarding_is_the_answer(client: httpx.Client) -> None:
    events = stream(client, REJECTED)
    shown = ""
    for event in events:
        if event["type"] == "chunk":
            shown += event["content"]
        if event["type"] == "switch":
            assert shown
            shown = shown[: -event["data"]["discard"]]
            assert shown == ""
    assert shown == events[-1]["content"]


def test_complete_carries_the_whole_answer(client: httpx.Client) -> None:
    result = stream(client, REJECTED)[-1]["data"]["result"]
    answer = client.post("/api/query", json={"query": REJECTED}).json()
    del result["latency_ms"], answer["latency_ms"]
    assert result == answer
    assert result["total_cost"] > 0


def test_a_failure_is_a_problem_in_the_stream(client: httpx.Client) -> None:
    last = stream(client, "[[both:401]] hi")[-1]
    assert last["type"] == "error"
    assert (last["data"]["status"], last["data"]["error"]) == (502, "upstream_error")
    assert last["content"] == last["data"]["detail"]


def test_a_deadline_ends_the_stream_with_an_error(serve: Serve) -> None:
    last = stream(serve(request_deadline_seconds=0.05), "[[both:hang]] hi")[-1]
    assert last["data"]["error"] == "timeout"


def test_a_url_streams_the_same(client: httpx.Client) -> None:
    with client.stream("GET", PATH, params={"query": ACCEPTED}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = list(parsed(response.iter_lines()))
    assert types(events) == types(stream(client, ACCEPTED))


def test_proxies_are_told_not_to_buffer_or_keep_it(client: httpx.Client) -> None:
    with client.stream("POST", PATH, json={"query": ACCEPTED}) as response:
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def halting(
    stub: Callable[[Answering], Stub], gate: threading.Event, serve: Serve, tmp_path: Path
) -> httpx.Client:
    """A service whose drafter says one word, and the next when the gate opens."""

    async def halt(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text, finish in (("Artificial", None), (" intelligence is software.", "stop")):
            choice = {"delta": {"content": text}, "finish_reason": finish}
            await response.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            await asyncio.to_thread(gate.wait, 60)
        return response

    upstream = stub(halt)
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    return serve(cascade_file=path)


def test_events_arrive_while_the_model_is_still_writing(
    halting: httpx.Client, gate: threading.Event
) -> None:
    with halting.stream("POST", PATH, json={"query": ACCEPTED}) as response:
        events = parsed(response.iter_lines())
        assert next(events)["type"] == "routing"
        assert next(events)["content"] == "Artificial"
        gate.set()
        assert [event["type"] for event in events][-1] == "complete"


def test_the_upstream_stops_when_the_client_leaves(
    client: httpx.Client, simulator_url: str
) -> None:
    def drafts() -> dict[str, int]:
        found: dict[str, int] = httpx.get(f"{simulator_url}/simulator/stats", verify=TLS).json()[
            "simulator-small"
        ]
        return found

    before = drafts()["cancelled"]
    with client.stream("POST", PATH, json={"query": "[[drafter:slow]] What is AI?"}) as response:
        events = parsed(response.iter_lines())
        while next(events)["type"] != "chunk":
            pass
    assert eventually(lambda: drafts()["cancelled"] == before + 1)
    assert eventually(lambda: drafts()["in_flight"] == 0)


def test_a_client_that_leaves_is_in_the_books(serve: Serve) -> None:
    client = serve()
    with client.stream("POST", PATH, json={"query": "[[both:slow]] What is AI?"}) as response:
        next(parsed(response.iter_lines()))
    assert eventually(lambda: outcomes(client) == {"cancelled": 1})


def outcomes(client: httpx.Client) -> dict[str, int]:
    found: dict[str, int] = client.get("/api/stats").json()["outcomes"]
    return found


def test_a_stream_costs_what_it_says(serve: Serve) -> None:
    client = serve()
    result = stream(client, REJECTED)[-1]["data"]["result"]
    stats = client.get("/api/stats").json()
    assert math.isclose(stats["total_cost"], result["total_cost"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"query": ""}, 422),
        ({"query": "hi", "x": 1}, 422),
        ({"query": "x" * 2001}, 422),
        ({"query": "\ud800"}, 422),
    ],
)
def test_what_can_be_refused_is_refused_before_the_stream(
    client: httpx.Client, body: dict[str, object], status: int
) -> None:
    response = client.post(
        PATH, content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


def test_a_wrong_url_is_refused_before_the_stream(client: httpx.Client) -> None:
    assert client.get(PATH).status_code == 422
    assert client.get(PATH, params={"query": "hi", "x": "1"}).status_code == 422


def test_an_exhausted_budget_is_a_402_before_the_stream(serve: Serve) -> None:
    response = serve(daily_budget="0.0001").post(PATH, json={"query": "hi"})
    assert (response.status_code, response.json()["error"]) == (402, "budget_exceeded")


def test_the_prompt_of_a_stream_is_never_logged(serve: Serve, logged: list[str]) -> None:
    client = serve(log_level="DEBUG")
    client.headers["X-Request-ID"] = "watched"
    stream(client, "a secret prompt")
    stream(client, "[[both:500]] a secret prompt")
    client.get(PATH, params={"query": "[[both:cut]] a secret prompt"})
    assert eventually(lambda: sum("id=watched" in line for line in logged) == 3)
    assert not any("secret" in line for line in logged)


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["500", "429", "empty", "cut", "html", "nousage", "garbage"])
def test_a_stream_and_an_answer_come_to_the_same(
    client: httpx.Client, place: str, name: str
) -> None:
    role = "verifier" if place == "direct" else place
    poor = "[[drafter:poor]]" if place == "verifier" else ""
    query, direct = f"{poor}[[{role}:{name}]] What is AI?", place == "direct"
    last = stream(client, query, force_direct=direct)[-1]
    response = client.post("/api/query", json={"query": query, "force_direct": direct})
    if response.status_code == 200:
        told, answer = last["data"]["result"], response.json()
        same = ("content", "model_used", "draft_accepted", "degraded")
        assert [told[key] for key in same] == [answer[key] for key in same]
    else:
        assert last["type"] == "error"
        assert last["data"]["status"] == response.status_code
        assert last["data"]["error"] == response.json()["error"]


def test_a_service_that_fails_says_so_in_the_stream_and_in_its_log(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Engine, "_answer", fail)
    last = stream(client, ACCEPTED)[-1]
    assert (last["type"], last["data"]["error"]) == ("error", "internal_error")
    assert "secret" not in json.dumps(last)
    assert any("unexpected ZeroDivisionError" in line for line in logged)
    assert not any("secret" in line for line in logged)


# --- withdrawn, or held back ----------------------------------------------------------------------

POOR_AND_CUT = "[[drafter:poor]] [[verifier:cut]] What is AI?"


@pytest.fixture
def lenient(serve: Serve, simulator_url: str, tmp_path: Path) -> httpx.Client:
    """A service that prefers a rejected draft to an error."""
    path = tmp_path / "cascade.toml"
    more = 'on_verifier_failure = "draft"'
    path.write_text(cascade_toml(simulator_url, simulator_url, more=more), encoding="utf-8")
    return serve(cascade_file=path)


def test_a_draft_that_comes_back_withdraws_the_verifiers_text(lenient: httpx.Client) -> None:
    events = stream(lenient, POOR_AND_CUT)
    assert types(events) == (
        ["routing", "chunk", "draft_decision", "switch", "chunk", "switch", "chunk", "complete"]
    )
    assert all(event["data"]["discard"] > 0 for event in events if event["type"] == "switch")
    result = events[-1]["data"]["result"]
    assert shown(events) == result["content"]
    assert (result["degraded"], result["draft_accepted"]) == (True, False)
    assert result["model_used"] == "simulator-small"


def test_an_answer_is_degraded_as_well(lenient: httpx.Client) -> None:
    answer = lenient.post("/api/query", json={"query": POOR_AND_CUT}).json()
    assert (answer["degraded"], answer["model_used"]) == (True, "simulator-small")
    assert outcomes(lenient) == {"rejected": 1}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (ACCEPTED, "routing draft_decision chunk complete"),
        (REJECTED, "routing draft_decision switch chunk complete"),
        (DIRECT, "routing chunk complete"),
        ("[[both:500]] hi", "routing draft_decision switch error"),
        (POOR_AND_CUT, "routing draft_decision switch chunk error"),
    ],
)
def test_a_buffered_stream_withdraws_nothing(
    client: httpx.Client, query: str, expected: str
) -> None:
    events = stream(client, query, mode="buffered")
    assert types(events) == expected.split()
    assert all(event["data"]["discard"] == 0 for event in events if event["type"] == "switch")
    if events[-1]["type"] == "complete":
        assert shown(events) == events[-1]["content"]


def test_a_buffered_stream_sends_no_verifier_that_a_draft_may_replace(
    lenient: httpx.Client,
) -> None:
    events = stream(lenient, POOR_AND_CUT, mode="buffered")
    assert types(events) == ["routing", "draft_decision", "switch", "chunk", "complete"]
    assert shown(events) == events[-1]["content"]
    assert events[-1]["data"]["result"]["degraded"] is True


def test_a_url_can_ask_for_a_buffered_stream(client: httpx.Client) -> None:
    with client.stream("GET", PATH, params={"query": REJECTED, "mode": "buffered"}) as response:
        events = list(parsed(response.iter_lines()))
    assert types(events) == ["routing", "draft_decision", "switch", "chunk", "complete"]


def shown(events: list[dict[str, Any]]) -> str:
    """What a client has on its screen in the end."""
    text = ""
    for event in events:
        if event["type"] == "switch":
            text = text[: len(text) - event["data"]["discard"]]
        if event["type"] == "chunk":
            text += event["content"]
    return text


# --- waiting, and leaving -------------------------------------------------------------------------


def test_a_comment_keeps_the_connection_while_a_model_thinks(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.02)
    body = {"query": "[[both:hang]] hi"}
    headers = {"X-Request-Deadline": "0.5"}
    with client.stream("POST", PATH, json=body, headers=headers) as response:
        lines = list(response.iter_lines())
    assert any(line.startswith(":") for line in lines)
    assert [event["type"] for event in parsed(iter(lines))][-1] == "error"


def test_a_client_can_shorten_the_deadline_of_a_stream(client: httpx.Client) -> None:
    headers = {"X-Request-Deadline": "0.1"}
    with client.stream("POST", PATH, json={"query": "[[both:hang]] hi"}, headers=headers) as answer:
        last = list(parsed(answer.iter_lines()))[-1]
    assert last["content"] == "No answer came within 0.1 seconds."


@pytest.mark.parametrize("field", ["mode", "X-Request-Deadline"])
def test_what_a_stream_cannot_do_is_refused(client: httpx.Client, field: str) -> None:
    body = {"query": "hi"} | ({"mode": "fast"} if field == "mode" else {})
    headers = {} if field == "mode" else {field: "soon"}
    response = client.post(PATH, json=body, headers=headers)
    assert response.status_code == 422
    assert [each["field"] for each in response.json()["errors"]] == [field]


@pytest.mark.parametrize("mode", ["live", "buffered"])
@pytest.mark.parametrize(
    ("direct", "verifier"),
    [(False, False), (False, True), (True, True)],
    ids=["drafting", "verifying", "direct"],
)
def test_a_model_that_has_not_begun_stops_as_well(
    leave: Leave, mode: str, direct: bool, verifier: bool
) -> None:
    body = {"query": ACCEPTED, "force_direct": direct, "mode": mode}
    left = leave(PATH, body, verifier=verifier)
    # It takes some milliseconds; a busy machine may take longer.
    assert left.seconds < 1
    assert eventually(lambda: outcomes(left.client) == {"cancelled": 1})
    assert left.client.get("/api/stats").json()["spent_today"] > 0


def test_a_stream_is_paid_by_its_key(serve: Serve) -> None:
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry, key_daily_budget="0.0001")
    response = client.post(PATH, json={"query": "hi"}, headers={"X-API-Key": key})
    assert (response.status_code, response.json()["budget"]) == (402, "account")


# --- the service stops ----------------------------------------------------------------------------


def last_events(service: Served, query: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The last event of each of so many streams that are open while the service is told to stop."""
    begun = threading.Barrier(count + 1, timeout=20)

    def read() -> dict[str, Any]:
        with (
            client_of(service.url) as client,
            client.stream("POST", PATH, json=query, timeout=20) as response,
        ):
            events = parsed(response.iter_lines())
            next(events)
            begun.wait()
            return list(events)[-1]

    with ThreadPoolExecutor(count) as threads:
        streams = [threads.submit(read) for _ in range(count)]
        begun.wait()
        service.terminate()
        return [each.result() for each in streams]


def test_open_streams_come_to_their_end_when_the_service_stops(cascade_file: Path) -> None:
    slow = {"query": f"[[drafter:slow]] {ACCEPTED}", "max_tokens": 5}
    with served(cascade_file) as service:
        assert [each["type"] for each in last_events(service, slow, 20)] == ["complete"] * 20
        assert service.ended() == 0
    assert "Traceback" not in service.log


def test_streams_that_take_too_long_are_told(cascade_file: Path) -> None:
    slow = {"query": f"[[drafter:slow]] {ACCEPTED}", "max_tokens": 100}
    with served(cascade_file, SHUTDOWN_GRACE_SECONDS="1") as service:
        for last in last_events(service, slow, 5):
            assert (last["type"], last["data"]["error"]) == ("error", "not_ready")
        assert service.ended() == 0
    assert "Traceback" not in service.log
