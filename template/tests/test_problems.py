"""Errors as problem+json: the right status, a code, and nothing that is not the client's."""

from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest

from app.cascade.errors import (
    BudgetExceeded,
    CascadeError,
    DeadlineExceeded,
    FaultKind,
    NotReady,
    UpstreamFailed,
    UpstreamFault,
)
from app.http.problems import MEDIA_TYPE, Problem, from_cascade
from tests.conftest import Serve, Service


def upstream(kind: FaultKind, status: int | None = None, wait: float | None = None) -> Exception:
    return UpstreamFailed("large", UpstreamFault(kind, status, wait))


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (BudgetExceeded(Decimal("0.5"), 60.0), 402, "budget_exceeded"),
        (DeadlineExceeded(60.0), 504, "timeout"),
        (NotReady(), 503, "not_ready"),
        (CascadeError(), 502, "upstream_error"),
        (upstream("unreachable"), 502, "upstream_error"),
        (upstream("refused", 401), 502, "upstream_error"),
        (upstream("unavailable", 500), 502, "upstream_error"),
        (upstream("malformed"), 502, "upstream_error"),
        (upstream("empty"), 502, "upstream_error"),
        (upstream("interrupted"), 502, "upstream_error"),
        (upstream("timeout"), 504, "timeout"),
        (upstream("overloaded", 429), 503, "upstream_overloaded"),
        (RuntimeError("a secret"), 500, "internal_error"),
        (Problem(418, "teapot", "Short and stout."), 418, "teapot"),
    ],
)
def test_every_failure_has_its_status_and_code(failure: Exception, status: int, code: str) -> None:
    problem = from_cascade(failure)
    assert (problem.status, problem.error) == (status, code)


def test_a_failure_of_our_own_is_logged_and_not_explained(logged: list[str]) -> None:
    assert "secret" not in str(from_cascade(RuntimeError("a secret")).body())
    (line,) = [line for line in logged if "app.http.problems" in line]
    assert "RuntimeError" in line
    assert "secret" not in line


def test_an_overloaded_upstream_says_when_to_come_back() -> None:
    assert from_cascade(upstream("overloaded", 429, 6.2)).headers == {"Retry-After": "7"}


def test_the_body_is_that_of_rfc_9457(client: httpx.Client) -> None:
    response = client.get("/nowhere")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "Not Found",
        "error": "not_found",
    }


def test_a_wrong_method_is_a_problem_that_says_which_are_right(client: httpx.Client) -> None:
    response = client.put("/api/query")
    assert response.status_code == 405
    assert response.headers["content-type"] == "application/problem+json"
    assert "POST" in response.headers["allow"] or "GET" in response.headers["allow"]


@pytest.fixture
def failing(shared_service: Service) -> Iterator[None]:
    """The shared service with an engine that fails in a way that nobody foresaw."""

    class Broken:
        async def ask(self, *_: object) -> None:
            raise RuntimeError("a secret of the prompt")

    state = shared_service.app.state
    engine, state.engine = state.engine, Broken()
    yield
    state.engine = engine


@pytest.mark.usefixtures("failing")
def test_what_nobody_foresaw_is_a_500_without_the_exceptions_text(client: httpx.Client) -> None:
    response = client.post("/api/query", json={"query": "hi"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["error"] == "internal_error"
    assert "secret" not in response.text


@pytest.mark.usefixtures("failing")
def test_what_nobody_foresaw_is_logged_by_type_and_place_alone(
    client: httpx.Client, logged: list[str]
) -> None:
    client.post("/api/query", json={"query": "hi"})
    assert any("unexpected RuntimeError in " in line for line in logged)
    assert not any("secret" in line for line in logged)


def test_the_problem_of_a_failed_upstream_names_the_model_alone(client: httpx.Client) -> None:
    response = client.post("/api/query", json={"query": "[[both:401]] hi"})
    assert response.status_code == 502
    assert response.json()["detail"] == (
        "The model simulator-large gave no answer: refused (HTTP 401)."
    )


def test_retry_after_of_an_upstream_reaches_the_client(client: httpx.Client) -> None:
    response = client.post("/api/query", json={"query": "[[both:429]] hi"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


def test_a_deadline_is_a_504(serve: Serve) -> None:
    client = serve(request_deadline_seconds=0.05)
    response = client.post("/api/query", json={"query": "[[both:hang]] hi"})
    assert (response.status_code, response.json()["error"]) == (504, "timeout")


def test_an_exhausted_budget_is_a_402(serve: Serve) -> None:
    client = serve(daily_budget=Decimal("0.0001"))
    response = client.post("/api/query", json={"query": "hi"})
    assert (response.status_code, response.json()["error"]) == (402, "budget_exceeded")


def test_problems_are_documented(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    operations = [
        each for path in paths if path.startswith("/api/") for each in paths[path].values()
    ]
    errors = [
        operation["responses"][status] for operation in operations for status in ("4XX", "5XX")
    ]
    assert {media_type for error in errors for media_type in error["content"]} == {MEDIA_TYPE}
