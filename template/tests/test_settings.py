"""The environment and `.env` as settings."""

from decimal import Decimal
from pathlib import Path

import pytest

from app.cascade.errors import ConfigurationError
from app.settings import Settings, load_settings


def test_the_defaults_are_those_of_the_guide() -> None:
    settings = Settings()
    assert settings.environment == "development"
    assert settings.log_level == "INFO"
    assert settings.daily_budget == Decimal("10.0")
    assert settings.max_query_chars == 2000
    assert settings.openai_api_key is None
    assert settings.anthropic_api_key is None


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILY_BUDGET", "2.50")
    assert load_settings(Settings).daily_budget == Decimal("2.50")


def test_a_dotenv_file_sets_them_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MAX_QUERY_CHARS=7\nOTHER=ignored\n", encoding="utf-8")
    assert load_settings(Settings).max_query_chars == 7


def test_the_environment_wins_over_the_dotenv_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MAX_QUERY_CHARS=7", encoding="utf-8")
    monkeypatch.setenv("MAX_QUERY_CHARS", "8")
    assert load_settings(Settings).max_query_chars == 8


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILY_BUDGET", "")
    monkeypatch.setenv("OPENAI_API_KEY", "")
    settings = load_settings(Settings)
    assert settings.daily_budget == Decimal("10.0")
    assert settings.key("OPENAI_API_KEY") is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "staging"),
        ("LOG_LEVEL", "LOUD"),
        ("SIMULATOR", "maybe"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "10.0.0.1,proxy"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "::/0"),
        ("DAILY_BUDGET", "0"),
        ("DAILY_BUDGET", "NaN"),
        ("DAILY_BUDGET", "much"),
        ("DAILY_BUDGET", "1000001"),
        ("KEY_DAILY_BUDGET", "-1"),
        ("KEY_DAILY_BUDGET", "NaN"),
        ("REQUEST_BUDGET", "0"),
        ("REQUEST_BUDGET", "Infinity"),
        ("LEDGER_ON_FAILURE", "ajar"),
        ("LEDGER_KEEP_DAYS", "0"),
        ("MAX_QUERY_CHARS", "0"),
        ("MAX_BODY_BYTES", "-1"),
        ("REQUEST_DEADLINE_SECONDS", "0"),
        ("REQUEST_DEADLINE_SECONDS", "inf"),
        ("DRAIN_SECONDS", "-1"),
        ("SHUTDOWN_GRACE_SECONDS", "-1"),
    ],
)
def test_an_impossible_value_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        load_settings(Settings)


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILY_BUDGET", "x")
    monkeypatch.setenv("MAX_BODY_BYTES", "y")
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(Settings)
    named = [line.partition(":")[0] for line in str(refusal.value).splitlines()]
    assert named == ["DAILY_BUDGET", "MAX_BODY_BYTES"]


def test_a_refusal_does_not_show_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILY_BUDGET", "sk-pasted-into-the-wrong-line")
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(Settings)
    assert "sk-pasted" not in str(refusal.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MY_OWN_KEY"])
def test_any_key_variable_is_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sk-secret")
    found = Settings().key(name)
    assert found is not None
    assert found.get_secret_value() == "sk-secret"


def test_any_key_variable_is_found_in_the_dotenv_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MY_OWN_KEY=sk-secret", encoding="utf-8")
    found = Settings().key("MY_OWN_KEY")
    assert found is not None
    assert found.get_secret_value() == "sk-secret"


def test_a_key_variable_that_is_not_set_is_none() -> None:
    assert Settings().key("MY_OWN_KEY") is None


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("API_KEYS", "secret-entry")
    monkeypatch.setenv("LEDGER_URL", "redis://:secret@ledger/0")
    assert "secret" not in repr(Settings())
