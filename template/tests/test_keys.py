"""API keys: who may do what."""

import hashlib

import httpx
import pytest

from app.cascade.errors import ConfigurationError
from app.http.keys import ApiKey, make, parse
from tests.conftest import Serve, key_and_entry

DIGEST = hashlib.sha256(b"a-key").hexdigest()


@pytest.fixture
def keys() -> dict[str, str]:
    """Two keys and what `API_KEYS` says to accept them."""
    use, use_entry = key_and_entry("reader")
    admin, admin_entry = key_and_entry("owner", "admin")
    return {"use": use, "admin": admin, "entries": f"{use_entry}, {admin_entry}"}


@pytest.fixture
def guarded(serve: Serve, keys: dict[str, str]) -> httpx.Client:
    """A service that wants keys."""
    return serve(api_keys=keys["entries"])


def test_entries_are_read() -> None:
    entries = f" ann:use:{DIGEST} ,bob:admin:{DIGEST},"
    assert parse(entries) == (ApiKey("ann", "use", DIGEST), ApiKey("bob", "admin", DIGEST))


def test_no_entries_are_no_keys() -> None:
    assert parse("") == ()


@pytest.mark.parametrize(
    "entry",
    [
        "sk-a-key-itself",
        f"ann:use:{DIGEST[:-1]}",
        f"ann:use:{DIGEST.upper()}",
        f"ann:root:{DIGEST}",
        f":use:{DIGEST}",
        f"ann smith:use:{DIGEST}",
        f"ann:use:{DIGEST}:more",
    ],
)
def test_a_wrong_entry_is_refused_by_its_number_and_not_shown(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^API_KEYS: entry 2 ") as refusal:
        parse(f"ann:use:{DIGEST},{entry}")
    assert entry not in str(refusal.value)


def test_a_made_key_is_accepted_by_its_entry() -> None:
    key, entry = key_and_entry("ann")
    assert parse(entry)[0].digest == hashlib.sha256(key.encode()).hexdigest()


def test_no_two_keys_are_the_same() -> None:
    assert key_and_entry("ann")[0] != key_and_entry("ann")[0]


@pytest.mark.parametrize("name", ["", "ann smith", "ann:admin", "x" * 65])
def test_a_name_that_cannot_stand_in_an_entry_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        make(name, "use")


def test_either_header_carries_a_key(guarded: httpx.Client, keys: dict[str, str]) -> None:
    for headers in ({"X-API-Key": keys["use"]}, {"Authorization": f"Bearer {keys['use']}"}):
        assert guarded.get("/api/stats", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"X-API-Key": "ä"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic d3Jvbmc="},
    ],
)
def test_without_a_known_key_it_is_a_401(guarded: httpx.Client, headers: dict[str, str]) -> None:
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    response = guarded.get("/api/stats", headers=encoded)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"] == "unauthorized"


@pytest.mark.parametrize("name", ["api_key", "key", "X-API-Key", "access_token"])
def test_a_key_in_the_url_opens_nothing_and_is_not_logged(
    guarded: httpx.Client, keys: dict[str, str], logged: list[str], name: str
) -> None:
    response = guarded.get("/api/query", params={"query": "hi", name: keys["use"]})
    assert response.status_code == 401
    assert "X-API-Key: KEY" in response.json()["detail"]
    assert keys["use"] not in response.text
    assert not any(keys["use"] in line for line in logged)


def test_a_hash_is_no_key(guarded: httpx.Client, keys: dict[str, str]) -> None:
    digest = hashlib.sha256(keys["use"].encode()).hexdigest()
    assert guarded.get("/api/stats", headers={"X-API-Key": digest}).status_code == 401


def test_what_needs_an_admin_refuses_others(guarded: httpx.Client, keys: dict[str, str]) -> None:
    response = guarded.delete("/api/stats", headers={"X-API-Key": keys["use"]})
    assert (response.status_code, response.json()["error"]) == (403, "forbidden")


def test_an_admin_may_do_everything(guarded: httpx.Client, keys: dict[str, str]) -> None:
    headers = {"X-API-Key": keys["admin"]}
    assert guarded.get("/api/stats", headers=headers).status_code == 200
    assert guarded.delete("/api/stats", headers=headers).status_code == 204


def test_both_headers_are_documented(client: httpx.Client) -> None:
    found = client.get("/openapi.json").json()
    schemes = found["components"]["securitySchemes"]
    assert {each.get("scheme", each.get("name")) for each in schemes.values()} == {
        "bearer",
        "X-API-Key",
    }
    asked = found["paths"]["/api/query"]["post"]["security"]
    assert asked == [{name: []} for name in schemes]
    assert "security" not in found["paths"]["/health"]["get"]


def test_every_route_of_the_api_wants_a_key(guarded: httpx.Client) -> None:
    paths = guarded.get("/openapi.json").json()["paths"]
    statuses = {
        f"{method} {path}": guarded.request(method, path).status_code
        for path, operations in paths.items()
        for method in operations
        if path not in ("/health", "/readiness", "/liveness")
    }
    assert set(statuses.values()) == {401}, statuses


def test_probes_want_no_key(guarded: httpx.Client) -> None:
    for path in ("/health", "/readiness", "/liveness"):
        assert guarded.get(path).status_code == 200


def test_without_keys_the_service_is_open(client: httpx.Client) -> None:
    assert client.get("/api/stats").status_code == 200


def test_no_key_is_logged(guarded: httpx.Client, keys: dict[str, str], logged: list[str]) -> None:
    guarded.get("/api/stats", headers={"X-API-Key": keys["use"]})
    guarded.get("/api/stats", headers={"X-API-Key": "wrong-key"})
    assert logged
    assert not any(keys["use"] in line or "wrong-key" in line for line in logged)
