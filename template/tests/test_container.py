"""What the image and compose.yaml say, against what the service does."""

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from fastapi import FastAPI
from starlette.routing import Match

from app.cli import cli
from app.http.drain import LAST_WORDS
from app.main import create_app
from app.settings import EnvSettings, Settings

ROOT = Path(__file__).resolve().parents[1]
CASCADE = ROOT / "tests" / "cascade.toml"
Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The Dockerfile's stages, each from its FROM on; what precedes the first FROM is left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        if name and found:
            found[-1].append((name, " ".join(rest.split())))
    return found


def said(name: str) -> str:
    """What the last stage says with an instruction, once or in several."""
    return " ".join(rest for instruction, rest in stages()[-1] if instruction == name)


def health_command() -> list[str]:
    """The HEALTHCHECK as the engine runs it."""
    command: list[str] = json.loads(said("HEALTHCHECK").partition(" CMD ")[2])
    return command


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml."""
    found: dict[str, dict[str, Any]]
    found = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    return found


def compose() -> dict[str, Any]:
    """The one that is ours."""
    return services()["api"]


def seconds(duration: str) -> int:
    """A compose duration such as `1m30s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


@contextmanager
def answering(status: int) -> Iterator[HTTPServer]:
    """An HTTP server on a free port that answers `status` to every GET and notes the paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    paths: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.__dict__["paths"] = paths
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings(simulator="on", cascade_file=CASCADE))


def test_the_command_starts_the_service_where_everything_else_looks_for_it() -> None:
    python, dash_m, package, command, *arguments = json.loads(said("CMD"))
    assert (python, dash_m, package, command) == ("python", "-m", "app", "serve")
    serve: Any = typer.main.get_command(cli)
    options = serve.commands["serve"].make_context("serve", arguments).params
    assert options["host"] == "0.0.0.0"
    (published,) = compose()["ports"]
    assert str(options["port"]) == said("EXPOSE") == published.rpartition(":")[2]
    assert f", {options['port']}," in health_command()[-1]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (500, 1), (503, 1)])
def test_the_health_check_believes_only_a_200(app: FastAPI, status: int, code: int) -> None:
    python, *arguments, script = health_command()
    assert python == "python"
    with answering(status) as server:
        script = script.replace(said("EXPOSE"), str(server.server_port))
        environment = {"http_proxy": "http://127.0.0.1:9", "PATH": ""}
        ended = subprocess.run(
            [sys.executable, *arguments, script], env=environment, timeout=20, check=False
        )
    assert ended.returncode == code
    (path,) = server.__dict__["paths"]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    assert any(route.matches(scope)[0] is Match.FULL for route in app.routes), path


def test_it_runs_as_the_user_that_it_makes() -> None:
    uid = said("USER").partition(":")[0]
    assert int(uid) >= 10_000
    assert f"--uid {uid}" in said("RUN")


def test_it_is_stopped_by_the_signal_that_the_service_drains_on() -> None:
    assert said("STOPSIGNAL") == "SIGTERM"
    settings = Settings()
    longest = settings.drain_seconds + settings.shutdown_grace_seconds + LAST_WORDS
    assert seconds(compose()["stop_grace_period"]) > longest


def test_only_the_build_stage_sees_the_installer() -> None:
    *_, build, last = stages()
    assert "/uv" in dict(build)["COPY"] or any("/uv" in rest for _, rest in build)
    assert all("--from=build " in rest or "--from" not in rest for _, rest in last)
    assert "pip" in said("RUN")
    installs = [rest for name, rest in build if name == "RUN" and "uv sync" in rest]
    assert installs
    assert all("--locked" in rest and "--no-dev" in rest for rest in installs)


def test_the_models_are_where_the_settings_look_for_them() -> None:
    copied = [
        shlex.split(rest)[-2]
        for name, rest in stages()[-1]
        if name == "COPY" and "=build" not in rest
    ]
    assert str(Settings.model_fields["cascade_file"].default) in copied


def test_secrets_cannot_enter_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    first, *rest = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    let_in = {line.removeprefix("!") for line in rest if line.startswith("!")}
    assert {"pyproject.toml", "uv.lock", "cascade.toml", "src"} <= let_in
    assert let_in <= {"pyproject.toml", "uv.lock", "cascade.toml", "src", "README.md", "LICENSE"}
    assert "**/.env*" in rest


def test_every_variable_is_one_that_something_reads(app: FastAPI) -> None:
    assert app
    known = {field.upper() for kind in EnvSettings.__subclasses__() for field in kind.model_fields}
    names = {
        word.partition("=")[0]
        for stage in stages()
        for name, rest in stage
        if name == "ENV"
        for word in shlex.split(rest)
    }
    names |= set(compose().get("environment", {}))
    assert names
    ours = {name for name in names if not name.startswith(("PATH", "PYTHON", "UV_"))}
    assert ours <= known


def test_compose_gives_the_image_its_name() -> None:
    labels = dict(word.split("=", 1) for word in shlex.split(said("LABEL")))
    name, _, tag = compose()["image"].partition(":")
    assert name == labels["org.opencontainers.image.title"]
    assert tag not in {"", "latest"}


def test_every_image_of_others_is_a_version() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    images = re.findall(r"^ARG \w+_IMAGE=(.+)$", text, re.MULTILINE)
    images += [each["image"] for name, each in services().items() if name != "api"]
    assert len(images) > 2
    for image in images:
        assert re.search(r":[\w-]*\d+\.\d+\.\d+[\w.-]*\}?$", image), image


def test_compose_takes_away_what_a_service_does_not_need() -> None:
    for service in services().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
    assert all(entry["required"] is False for entry in compose()["env_file"])


def test_the_books_of_compose_are_in_its_redis_and_outlive_it() -> None:
    url = urlsplit(compose()["environment"]["LEDGER_URL"])
    assert (url.scheme, url.port) == ("redis", 6379)
    assert compose()["depends_on"] == {url.hostname: {"condition": "service_healthy"}}
    redis = services()[str(url.hostname)]
    assert "ports" not in redis
    (volume,) = redis["volumes"]
    options = redis["command"][1:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--dir"] == volume.partition(":")[2]
