"""The lines of the log: JSON for machines, text for people, and what neither ever holds."""

import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest

from app.cascade.errors import ConfigurationError
from app.http import logs
from app.settings import Settings
from tests.conftest import ACCEPTED, client_of, key_and_entry
from tests.served import served

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"
FORMATTERS = [logs.TextLine(), logs.JsonLine()]


def record(failure: Exception | None = None) -> logging.LogRecord:
    """A warning, raised while that failure was handled."""
    try:
        if failure:
            raise failure
    except Exception:
        return logging.LogRecord("app", 30, __file__, 1, "it %s", ("broke",), sys.exc_info())
    return logging.LogRecord("app", 30, __file__, 1, "it %s", ("broke",), None)


def test_a_line_in_production_is_an_object() -> None:
    line = json.loads(logs.JsonLine().format(record()))
    assert line.keys() == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "app", "it broke")
    assert datetime.fromisoformat(line["time"]).utcoffset() is not None


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_an_exception_says_is_not_logged(formatter: logging.Formatter) -> None:
    line = formatter.format(record(ValueError("a secret prompt")))
    assert "secret" not in line
    assert "ValueError" in line
    assert f"{__file__}:" in line


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_what_our_own_failures_say_is_logged(formatter: logging.Formatter) -> None:
    assert "API_KEYS is empty" in formatter.format(record(ConfigurationError("API_KEYS is empty")))


def test_a_json_line_stays_one_line() -> None:
    assert "\n" not in logs.JsonLine().format(record(ValueError("two\nlines")))


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_every_line_of_a_request_has_its_id(formatter: logging.Formatter) -> None:
    token = logs.REQUEST_ID.set("trace-1")
    try:
        assert "trace-1" in formatter.format(record())
    finally:
        logs.REQUEST_ID.reset(token)
    assert "id" not in formatter.format(record())


@pytest.mark.parametrize(
    ("environment", "log_format", "lines"),
    [
        ("development", "auto", "text"),
        ("production", "auto", "json"),
        ("production", "text", "text"),
        ("development", "json", "json"),
    ],
)
def test_production_logs_json(environment: str, log_format: str, lines: str) -> None:
    settings = Settings.model_validate({"environment": environment, "log_format": log_format})
    assert settings.log_lines == lines


def test_a_service_in_production_writes_one_object_for_each_request(cascade_file: Path) -> None:
    key, entry = key_and_entry("ann")
    with (
        served(cascade_file, ENVIRONMENT="production", API_KEYS=entry) as service,
        client_of(service.url) as client,
    ):
        headers = {"X-API-Key": key, "X-Request-ID": "trace-1"}
        response = client.get("/api/query", params={"query": ACCEPTED}, headers=headers)
        assert response.status_code == 200
        failed = client.post("/api/query", json={"query": "[[both:500]] hi"}, headers=headers)
        assert failed.status_code == 502
        service.terminate()
        assert service.ended() == 0
    lines = [json.loads(line) for line in service.lines]
    answered, broken = (line for line in lines if line["logger"] == "app.access")
    assert answered["request_id"] == broken["request_id"] == "trace-1"
    assert (answered["method"], answered["path"], answered["status"]) == ("GET", "/api/query", 200)
    assert answered["duration_ms"] > 0
    (documented,) = (line for line in OPERATIONS.read_text().splitlines() if line.startswith("{"))
    assert list(answered) == list(json.loads(documented))
    for secret in (ACCEPTED, "What", key):
        assert secret not in service.log
