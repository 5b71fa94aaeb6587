"""The `Host` header: the names that the service answers to."""

import pytest

from tests.conftest import Serve, key_and_entry

PROBES = ("/health", "/readiness", "/liveness")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", 200),
        ("API.example.com:8000", 200),
        ("a.b.internal", 200),
        ("internal", 421),
        ("notinternal", 421),
        ("evil.example", 421),
        ("api.example.com.evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_named_hosts_are_answered(serve: Serve, host: str, status: int) -> None:
    client = serve(allowed_hosts=("api.example.com", "*.internal"))
    answer = client.get("/api/stats", headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["error"] == "misdirected_request"


def test_probes_come_by_any_name(serve: Serve) -> None:
    client = serve(allowed_hosts=("api.example.com",))
    for path in PROBES:
        assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200


def test_with_a_key_every_name_will_do_unless_some_are_listed(serve: Serve) -> None:
    key, entry = key_and_entry("ann")
    headers = {"X-API-Key": key, "Host": "whatever.example"}
    assert serve(api_keys=entry).get("/api/stats", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("0.0.0.0:8000", 401)],
)
def test_an_open_service_goes_by_the_names_of_its_own_machine(
    serve: Serve, host: str, status: int
) -> None:
    assert serve().get("/api/stats", headers={"Host": host}).status_code == status


def test_a_page_whose_name_leads_to_this_machine_is_not_this_machine(serve: Serve) -> None:
    """DNS rebinding: the browser connects to loopback and sends the page's own name."""
    assert serve().get("/api/stats", headers={"Host": "evil.example"}).status_code == 401
    named = serve(allowed_hosts=("my.example",))
    assert named.get("/api/stats", headers={"Host": "my.example"}).status_code == 200
