"""A running service driven over HTTP, each switch by what it does and by what is not there."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import httpx

from tests.processes import wait_for
from tests.snapshots import served

RATE_LIMIT = 45
"""Requests a minute that the service is started with; `drive` needs fewer before its last step."""

ACCEPTED = "What is AI?"
REJECTED = "Compare SQL and NoSQL databases"
SLOW = "Explain the history of marmalade [[both:slow]]"
PROMPTS = (ACCEPTED, REJECTED, "history of marmalade")

PROBES = {"/health": {"get"}, "/readiness": {"get"}, "/liveness": {"get"}}
API = {
    "": {"/api/query": {"get", "post"}, "/api/stats": {"get", "delete"}},
    "streaming": {"/api/query/stream": {"get", "post"}},
    "openai_api": {
        "/v1/chat/completions": {"post"},
        "/v1/embeddings": {"post"},
        "/v1/messages": {"post"},
        "/v1/models": {"get"},
        "/v1/models/{name}": {"get"},
    },
}
"""The API's routes and methods, by the switch that brings them."""

_EXPECTED_LOG = re.compile(
    r"\S+ \S+ ("
    r"INFO uvicorn\.error .*"
    r"|INFO app\.http\.drain draining: \d+ in flight, .*"
    r"|INFO app\.access [A-Z]+ /[\w./-]* \d{3} [\d.]+ms id=\w+"
    r"|WARNING app\.runtime (.*, so )?the simulator answers: .*"
    r"|WARNING slowapi ratelimit \d+ per 1 minute \([\d.]+\) exceeded at endpoint: api id=\w+"
    r")"
)


def drive(url: str, on: Collection[str]) -> None:
    """Use every route as clients do.

    Raises:
        AssertionError: an answer is not what the contract says.
    """
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        check_probes(client, on)
        check_routes(client, on)
        check_answers(client)
        check_refusals(client)
        check_streaming(client, on)
        check_openai_api(client, on)
        check_books(client, on)
        check_rate_limit(client, on)


def check_probes(client: httpx.Client, on: Collection[str]) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["simulated"]) == ("healthy", True)
    assert set(health["features"]) == set(on) - {"docker", "kubernetes"}
    assert client.get("/readiness").json()["status"] == "ready"
    assert client.get("/liveness").json() == {"status": "alive"}


def check_routes(client: httpx.Client, on: Collection[str]) -> None:
    """The documentation lists these routes and no other."""
    docs = client.get("/docs")
    assert docs.status_code == 200
    assert "text/html" in docs.headers["content-type"]
    document = client.get("/openapi.json").json()
    listed = document["paths"]
    assert {path: set(methods) for path, methods in listed.items()} == PROBES | api_routes(on)
    del document["info"]
    assert document == served(on), "as meant? then `make snapshots`"
    for switch in API.keys() - {"", *on}:
        for path, methods in API[switch].items():
            for method in methods:
                gone = client.request(method, path.format(name="cascade"), json=None)
                assert (gone.status_code, gone.json()["error"]) == (404, "not_found"), path


def api_routes(on: Collection[str]) -> dict[str, set[str]]:
    """The API's routes in a service with these switches."""
    return {path: methods for switch in ("", *on) for path, methods in API.get(switch, {}).items()}


def check_answers(client: httpx.Client) -> None:
    """One draft is accepted, one is rejected, and the verifier can be asked at once."""
    posted = client.post("/api/query", json={"query": ACCEPTED, "max_tokens": 100})
    assert posted.headers["x-request-id"]
    accepted = answer(posted)
    assert (accepted["cascaded"], accepted["draft_accepted"]) == (True, True)
    assert accepted["saved"] > 0
    rejected = answer(client.get("/api/query", params={"query": REJECTED}))
    assert (rejected["cascaded"], rejected["draft_accepted"]) == (True, False)
    assert rejected["model_used"] != accepted["model_used"]
    direct = answer(client.post("/api/query", json={"query": ACCEPTED, "force_direct": True}))
    assert (direct["cascaded"], direct["draft_accepted"]) == (False, None)
    assert direct["cost"] > accepted["cost"] > 0


def answer(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    fields = {"content", "model_used", "cost", "latency_ms", "cascaded", "draft_accepted"}
    assert fields <= body.keys()
    assert body["content"]
    return body


def check_refusals(client: httpx.Client) -> None:
    """Bad input is told by field, as a problem, and never ends in a 500."""
    for field, body in {
        "query": {"query": ""},
        "max_tokens": {"query": ACCEPTED, "max_tokens": 0},
        "temperature": {"query": ACCEPTED, "temperature": "warm"},
        "colour": {"query": ACCEPTED, "colour": "blue"},
    }.items():
        refused = client.post("/api/query", json=body)
        check_problem(refused, 422, "validation_error")
        assert [error["field"] for error in refused.json()["errors"]] == [field]
    check_problem(client.get("/api/query"), 422, "validation_error")
    check_problem(client.get("/api/query", params={"query": "x" * 2001}), 422, "validation_error")
    json_type = {"Content-Type": "application/json"}
    malformed = client.post("/api/query", content=b'{"query": ', headers=json_type)
    check_problem(malformed, 422, "validation_error")
    too_long = client.post("/api/query", content=b" " * 1_000_001, headers=json_type)
    check_problem(too_long, 413, None)
    check_problem(client.put("/api/query"), 405, "method_not_allowed")
    check_problem(client.get("/nothing-here"), 404, "not_found")


def check_problem(response: httpx.Response, status: int, error: str | None) -> None:
    """An RFC 9457 problem with our `error` code."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["error"] == error if error else body["error"]


def check_streaming(client: httpx.Client, on: Collection[str]) -> None:
    page = client.get("/playground")
    if "streaming" not in on:
        check_problem(page, 404, "not_found")
        return
    assert "text/html" in page.headers["content-type"]
    path = "/api/query/stream"
    with client.stream("POST", path, json={"query": ACCEPTED}) as stream:
        accepted = list(events(stream))
    assert shape(accepted) == ["routing", "chunk", "draft_decision", "complete"]
    assert accepted[-1]["data"]["result"]["total_cost"] > 0
    assert text(accepted) == accepted[-1]["content"]
    with client.stream("GET", path, params={"query": REJECTED}) as stream:
        rejected = list(events(stream))
    kinds = ["routing", "chunk", "draft_decision", "switch", "chunk", "complete"]
    assert shape(rejected) == kinds
    check_problem(client.get(path), 422, "validation_error")
    # A client that leaves stops its query.
    with client.stream("GET", path, params={"query": SLOW}) as stream:
        next(events(stream))
    wait_for(lambda: client.get("/api/stats").json()["outcomes"].get("cancelled") == 1)


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """What a stream sends, as it comes."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    for line in response.iter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def shape(stream: Iterable[dict[str, Any]]) -> list[str]:
    """The types of a stream's events, many of the same as one."""
    kinds: list[str] = []
    for event in stream:
        if [event["type"]] != kinds[-1:]:
            kinds.append(event["type"])
    return kinds


def text(stream: Iterable[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in stream if event["type"] == "chunk")


def check_openai_api(client: httpx.Client, on: Collection[str]) -> None:
    if "openai_api" not in on:
        return
    names = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert "cascade" in names
    assert client.get("/v1/models/cascade").json()["id"] == "cascade"
    path = "/v1/chat/completions"
    body = {"model": "cascade", "messages": [{"role": "user", "content": ACCEPTED}]}
    whole = client.post(path, json=body).json()
    assert whole["object"] == "chat.completion"
    assert whole["usage"]["total_tokens"] > 0
    with client.stream("POST", path, json={**body, "stream": True}) as stream:
        chunks = list(events(stream))
    told = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(told) == whole["choices"][0]["message"]["content"]
    unknown = client.post(path, json={**body, "model": "nobody"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    message = client.post("/v1/messages", json={**body, "max_tokens": 100}).json()
    assert (message["type"], message["stop_reason"]) == ("message", "end_turn")
    assert message["content"][0]["text"] == "".join(told)


def check_books(client: httpx.Client, on: Collection[str]) -> None:
    """The statistics, and the metrics if there are any, tell of what was asked above."""
    stats = client.get("/api/stats").json()
    # Accepted drafts more come from a stream, from OpenAI's API in two ways and from Anthropic's.
    accepted = 1 + ("streaming" in on) + 3 * ("openai_api" in on)
    rejected = 1 + ("streaming" in on)
    assert stats["outcomes"]["accepted"] == accepted
    assert stats["outcomes"]["rejected"] == rejected
    assert stats["total_cost"] > 0
    metrics = client.get("/metrics")
    if "prometheus" not in on:
        check_problem(metrics, 404, "not_found")
        return
    assert samples(metrics.text, "cascadeflow_queries_total") == stats["total_queries"]
    assert (
        samples(metrics.text, "cascadeflow_query_duration_seconds_count") == stats["total_queries"]
    )
    cost = samples(metrics.text, "cascadeflow_query_cost_dollars_sum")
    assert abs(cost - stats["total_cost"]) < 1e-9


def samples(metrics: str, name: str) -> float:
    """The sum over all labels of one metric."""
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name))


def check_rate_limit(client: httpx.Client, on: Collection[str]) -> None:
    """Last: the minute's requests are used up; then API routes answer 429, and no other does."""
    statuses = {client.get("/api/stats").status_code for _ in range(RATE_LIMIT + 1)}
    assert statuses == ({200, 429} if "rate_limit" in on else {200})
    for path, methods in api_routes(on).items() if "rate_limit" in on else ():
        for method in methods:
            body = {"query": ACCEPTED} if method == "post" else None
            limited = client.request(method, path.format(name="cascade"), json=body)
            assert limited.status_code == 429, f"{method} {path}: {limited.status_code}"
            assert 1 <= int(limited.headers["retry-after"]) <= 60
            if path.startswith("/api/"):
                check_problem(limited, 429, "rate_limit_exceeded")
    pages = {"prometheus": "/metrics", "streaming": "/playground"}
    open_routes = [*PROBES, "/docs", *(page for switch, page in pages.items() if switch in on)]
    for path in open_routes * 2:
        assert client.get(path).status_code == 200, path


def check_log(log: str) -> None:
    """A log after `drive` holds no prompt, and no line but those of a healthy service."""
    for prompt in PROMPTS:
        for written in (prompt, prompt.replace(" ", "+"), prompt.replace(" ", "%20")):
            assert written.rstrip("?") not in log
    unexpected = [line for line in log.splitlines() if not _EXPECTED_LOG.fullmatch(line)]
    assert unexpected == []
