"""CORS, security headers and documentation: what browsers get."""

import httpx
import pytest

from app.cascade.errors import ConfigurationError
from app.settings import Settings, load_settings
from tests.conftest import ACCEPTED, Serve, key_and_entry

APP = "https://app.example.com"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, x-api-key",
}


def from_page(client: httpx.Client, origin: str) -> httpx.Response:
    return client.post("/api/query", json={"query": ACCEPTED}, headers={"Origin": origin})


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    return client.options("/api/query", headers={"Origin": origin, **PREFLIGHT})


def test_no_other_origin_may_call_until_one_is_named(serve: Serve) -> None:
    client = serve()
    assert preflight(client, APP).status_code == 405
    assert "access-control-allow-origin" not in from_page(client, APP).headers


def test_a_named_origin_may_call_and_no_other(serve: Serve) -> None:
    client = serve(cors_origins=(APP, "http://localhost:3000"))
    for origin in (APP, "http://localhost:3000"):
        asked = preflight(client, origin)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == origin
        assert from_page(client, origin).headers["access-control-allow-origin"] == origin
    assert preflight(client, "https://evil.example").status_code == 400
    assert "access-control-allow-origin" not in from_page(client, "https://evil.example").headers


def test_a_page_of_a_named_origin_can_read_refusals_and_headers(serve: Serve) -> None:
    _, entry = key_and_entry("ann")
    refused = from_page(serve(cors_origins=(APP,), api_keys=entry), APP)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == APP
    assert refused.headers["access-control-expose-headers"] == "*"


def test_a_browser_sends_no_cookies_anywhere(serve: Serve) -> None:
    asked = preflight(serve(cors_origins=("*",)), APP)
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in asked.headers


@pytest.mark.parametrize("path", ["/api/stats", "/health", "/docs", "/nowhere"])
def test_every_answer_says_what_not_to_do_with_it(serve: Serve, path: str) -> None:
    headers = serve().get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_only_over_https_a_browser_is_told_to_stay_there(serve: Serve) -> None:
    client, name = serve(), "strict-transport-security"
    assert name not in client.get("/health").headers
    # As a trusted proxy says it.
    assert name in client.get("/health", headers={"X-Forwarded-Proto": "https"}).headers


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({}, 200),
        ({"docs": "off"}, 404),
        ({"environment": "production"}, 404),
        ({"environment": "production", "docs": "on"}, 200),
    ],
)
def test_production_serves_its_documentation_only_if_told_to(
    serve: Serve, more: dict[str, str], status: int
) -> None:
    _, entry = key_and_entry("ann")
    client = serve(api_keys=entry, **more)
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == status


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CORS_ORIGINS", "app.example.com"),
        ("CORS_ORIGINS", "https://app.example.com/"),
        ("CORS_ORIGINS", "https://app.example.com,*"),
        ("ALLOWED_HOSTS", "https://api.example.com"),
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", "api.example.com:8000"),
        ("DOCS", "maybe"),
    ],
)
def test_what_cannot_be_one_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=f"^{variable}: "):
        load_settings(Settings)


def test_names_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ORIGINS", "https://a.example, http://localhost:3000,")
    monkeypatch.setenv("ALLOWED_HOSTS", "API.example.com,*.internal")
    settings = load_settings(Settings)
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.allowed_hosts == ("api.example.com", "*.internal")
