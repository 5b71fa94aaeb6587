"""Budgets over HTTP: whose they are, what a refusal says, and what the books say of a key."""

from dataclasses import dataclass

import httpx
import pytest

from tests.conftest import ACCEPTED, Serve, key_and_entry


@dataclass(frozen=True)
class Keys:
    """Two keys, and what `API_KEYS` says to accept them."""

    ann: str
    bob: str
    entries: str


@pytest.fixture
def keys() -> Keys:
    (ann, ann_entry), (bob, bob_entry) = key_and_entry("ann"), key_and_entry("bob")
    return Keys(ann, bob, f"{ann_entry},{bob_entry}")


def ask(client: httpx.Client, key: str = "") -> httpx.Response:
    headers = {"X-API-Key": key} if key else {}
    return client.post("/api/query", json={"query": ACCEPTED, "max_tokens": 100}, headers=headers)


def worst_case(serve: Serve) -> float:
    """What such a query is reserved for: the least budget that lets it in, to 10⁻⁴ dollars."""
    budgets = (number / 10_000 for number in range(1, 1000))
    return next(each for each in budgets if ask(serve(request_budget=each)).status_code == 200)


def test_a_query_that_could_cost_too_much_is_refused_whatever_is_left(serve: Serve) -> None:
    response = ask(serve(request_budget="0.0001"))
    assert response.status_code == 402
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["error"], problem["budget"]) == ("budget_exceeded", "query")
    assert problem["remaining"] == 0.0001
    assert "resets_in" not in problem


def test_a_refusal_says_what_is_left_and_when_it_is_whole_again(serve: Serve) -> None:
    problem = ask(serve(daily_budget="0.0002")).json()
    assert (problem["budget"], problem["remaining"]) == ("service", 0.0002)
    assert 0 < problem["resets_in"] <= 86_400


def test_a_key_that_has_spent_its_budget_takes_nothing_from_another(
    serve: Serve, keys: Keys
) -> None:
    enough = worst_case(serve)
    client = serve(api_keys=keys.entries, key_daily_budget=enough)
    assert ask(client, keys.ann).status_code == 200
    while (refused := ask(client, keys.ann)).status_code == 200:
        pass
    problem = refused.json()
    assert (problem["error"], problem["budget"]) == ("budget_exceeded", "account")
    assert 0 <= problem["remaining"] < enough
    assert "this key's budget" in problem["detail"]
    assert ask(client, keys.bob).status_code == 200


def test_a_query_is_in_the_books_of_its_key(serve: Serve, keys: Keys) -> None:
    client = serve(api_keys=keys.entries, key_daily_budget="0.0001")
    assert ask(client, keys.ann).json()["budget"] == "account"
    by_url = client.get("/api/query", params={"query": ACCEPTED}, headers={"X-API-Key": keys.ann})
    assert by_url.json()["budget"] == "account"
