"""The environment and `.env` as typed settings; a feature's own settings live with it."""

import ipaddress
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.cascade.errors import ConfigurationError

ENV_FILE = ".env"
Budget = Annotated[Decimal, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
HOST = re.compile(r"\A((\*\.)?[A-Za-z0-9._-]+|[0-9A-Fa-f:]+)\Z")
ORIGIN = re.compile(r"\Ahttps?://[a-z0-9.-]+(:\d{1,5})?\Z")


def _with_commas(value: object) -> object:
    """The parts of a text; anything else as it is."""
    return list(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_with_commas)]
SettingsT = TypeVar("SettingsT", bound="EnvSettings")


class EnvSettings(BaseSettings):
    """The base of every settings class: the environment first, then `.env`."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )


class Settings(EnvSettings):
    """What the service itself needs to know."""

    environment: Literal["development", "production"] = "development"
    """`production` refuses to start on the simulator or without an API key."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """The least that is logged."""
    log_format: Literal["auto", "json", "text"] = "auto"
    """What a line of the log is; `auto`: JSON in production, else text."""

    cascade_file: Path = Path("cascade.toml")
    """Where the models are described."""
    simulator: Literal["auto", "on", "off"] = "auto"
    """Whether simulated models answer; `auto`: until a key that `cascade.toml` names is set."""
    openai_api_key: SecretStr | None = None
    """The key of OpenAI; other providers' under the names that `cascade.toml` gives."""
    anthropic_api_key: SecretStr | None = None
    """The key of Anthropic."""

    daily_budget: Budget = Decimal("10.0")
    """US dollars a day for all queries together."""
    key_daily_budget: Budget | None = None
    """US dollars a day for each API key."""
    request_budget: Budget | None = None
    """US dollars that one query may cost at worst."""
    ledger_url: SecretStr = SecretStr("sqlite:///ledger.sqlite3")
    """Where the books are kept; the URL may hold a password."""
    ledger_on_failure: Literal["closed", "open"] = "closed"
    """While the books are out of reach: refuse queries, or answer them unbudgeted."""
    ledger_timezone: str = "UTC"
    """Whose midnight makes the budgets whole again."""
    ledger_keep_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days for which single queries are kept; the sums of days are kept longer."""
    api_keys: SecretStr = SecretStr("")
    """Comma-separated `name:role:sha256`, beside the keys that the ledger's place keeps."""

    trusted_proxies: str = "127.0.0.1,::1"
    """Whose `X-Forwarded-For` and `-Proto` are believed: addresses and networks, with commas."""

    cors_origins: Names = ()
    """Whose pages may call the API from a browser: `https://app.example.com`, or `*`."""
    allowed_hosts: Names = ()
    """The names that the service answers to, `*.example.com` for all below; none for any."""
    docs: Literal["auto", "on", "off"] = "auto"
    """Whether `/docs` and `/openapi.json` are served; `auto`: not in production."""

    max_query_chars: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Characters of a question."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """Bytes of a request's body."""
    request_deadline_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Seconds in which a query is answered, by both models together."""
    upstream_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """How often a call is tried while its fault may pass and the deadline leaves time."""
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    """Failed calls in a row after which a model is left alone for ten seconds."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 0
    """Seconds after SIGTERM in which queries are taken, while `/readiness` sends them elsewhere."""
    shutdown_grace_seconds: Annotated[int, Field(ge=0, le=3600)] = 20
    """Seconds after that in which they are answered; then they are told that it is over."""

    @property
    def serves_docs(self) -> bool:
        return self.shows(self.docs)

    def shows(self, wanted: Literal["auto", "on", "off"]) -> bool:
        """Whether to serve what is for people at work on the service; `auto`: in development."""
        return wanted == "on" or (wanted == "auto" and self.environment == "development")

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",) and not all(ORIGIN.match(each) for each in value):
            raise ValueError("write origins such as https://app.example.com, or * alone")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(HOST.match(each) for each in value):
            raise ValueError("write names such as api.example.com or *.example.com, without ports")
        return tuple(each.lower() for each in value)

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        for entry in filter(None, map(str.strip, value.split(","))):
            try:
                network = ipaddress.ip_network(entry)
            except ValueError:
                raise ValueError("write addresses or networks, such as 10.0.0.0/8") from None
            if network.prefixlen == 0:
                raise ValueError("whoever trusts every address believes every client")
        return value

    @property
    def log_lines(self) -> Literal["json", "text"]:
        """What each line of the log is."""
        if self.log_format != "auto":
            return self.log_format
        return "json" if self.environment == "production" else "text"

    def key(self, variable: str) -> SecretStr | None:
        """The value of any key variable that `cascade.toml` names, or None where it is not set."""
        named = {
            "OPENAI_API_KEY": self.openai_api_key,
            "ANTHROPIC_API_KEY": self.anthropic_api_key,
        }
        if variable in named:
            return named[variable]
        value = _environment().get(variable)
        return SecretStr(value) if value else None


def load_settings(kind: type[SettingsT]) -> SettingsT:
    """Read settings of one kind.

    Raises:
        ConfigurationError: names each variable that cannot be used; never shows its value.
    """
    try:
        return kind()
    except ValidationError as error:
        raise ConfigurationError(
            "\n".join(
                f"{'_'.join(str(part) for part in detail['loc']).upper()}: {detail['msg']}"
                for detail in error.errors(include_url=False, include_input=False)
            )
        ) from None


def _environment() -> Mapping[str, str | None]:
    return {**dotenv_values(ENV_FILE), **os.environ}
