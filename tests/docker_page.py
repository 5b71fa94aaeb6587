"""`docs/docker.md` of a project, followed command by command by somebody without a registry.

`docker` is a program that hands on to the engine that was found, and `docker compose` to Docker's
own or to podman-compose. It adds to a build what the page says for mirrors: where the base images
are. compose.yaml gets that from a second file, and its Redis from `REDIS_IMAGE`. Everything else is
as on the page: networks, published ports, volumes, hardening.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import httpx

from tests.containers import PYTHON_IMAGE, REDIS_IMAGE, UV_IMAGE, Engine, redis_image
from tests.documents import Reader, blocks, put
from tests.processes import free_ports, wait_for

DOCKER = """\
#!/bin/bash -e
case "$1" in
  build) exec {engine} build {arguments} "${{@:2}}" ;;
  compose) exec {compose} "${{@:2}}" ;;
esac
exec {engine} "$@"
"""
BUILD_ARGUMENTS = {"PYTHON_IMAGE": PYTHON_IMAGE, "UV_IMAGE": UV_IMAGE}
COMPOSE = f"""\
services:
  api:
    build:
      args:
        PYTHON_IMAGE: {PYTHON_IMAGE}
        UV_IMAGE: {UV_IMAGE}
"""
NAME = "docker-page-of-cascade-template"
"""Of the volume and the compose project: an engine may have others."""


def follow(found: Engine, project: Path, folder: Path) -> int:
    """Carry out the page, and see that its services answer and that their books last.

    Returns:
        How many commands it has.
    """
    (folder / "redis").mkdir()
    redis_image(found, folder / "redis", project)
    (folder / "mirror.yaml").write_text(COMPOSE, encoding="utf-8")
    port = str(*free_ports(1))
    env = {
        **found.env,
        "COMPOSE_FILE": f"compose.yaml:{folder / 'mirror.yaml'}",
        "COMPOSE_PROJECT_NAME": NAME,
        "PORT": port,
        # podman-compose's, which hands on what the containers say.
        "PYTHONUNBUFFERED": "1",
        "REDIS_IMAGE": REDIS_IMAGE,
    }
    composed, alone = blocks(project / "docs/docker.md")
    with Reader(project, programs(found, folder / "bin"), env) as reader:
        reader.serves = ("compose up", " my-cascade")
        reader.instead = {"-p 127.0.0.1:8000:": f"-p 127.0.0.1:{port}:", "-v books:": f"-v {NAME}:"}
        try:
            lock, create, up = (replace(composed, text=command) for command in composed.commands)
            reader.follow(lock)
            key = value(reader.follow(create), "key:")
            for count in (1, 2):
                reader.follow(up)
                assert asked(port, key) == count
                reader.follow(replace(up, text="docker compose down"))
            build, create, run = (replace(alone, text=command) for command in alone.commands)
            reader.follow(build)
            told = reader.follow(create)
            reader.instead["ENTRY"] = value(told, "add to API_KEYS:")
            for count in (1, 2):
                reader.follow(run)
                assert asked(port, value(told, "key:")) == count
                end(found)
        finally:
            reader.follow(replace(composed, text="docker compose down --volumes"))
            found("volume", "rm", "--force", NAME)
    return len(composed.commands) + len(alone.commands)


def programs(found: Engine, folder: Path) -> Path:
    """What the page calls, in a folder of its own."""
    engine = shutil.which(found.name)
    ours = Path(sys.executable).parent
    compose = f"{engine} compose" if found.name == "docker" else ours / "podman-compose"
    arguments = " ".join(f"--build-arg {name}={image}" for name, image in BUILD_ARGUMENTS.items())
    put(folder, "docker", DOCKER.format(engine=engine, compose=compose, arguments=arguments))
    (folder / "uv").symlink_to(ours / "uv")
    return folder


def value(told: str, label: str) -> str:
    """What a command printed after a label."""
    (line,) = (line for line in told.splitlines() if line.startswith(label))
    return line.removeprefix(label).strip()


def asked(port: str, key: str) -> int:
    """Ask one question, once the service is ready; how many the books have then."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30) as client:

        def ready() -> bool:
            try:
                return client.get("/readiness").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, seconds=60)
        assert httpx.get(f"{url}/api/stats", trust_env=False).status_code == 401
        answer = client.post("/api/query", json={"query": "What is AI?"})
        assert answer.status_code == 200, answer.text
        count: int = client.get("/api/stats").json()["total_queries"]
    return count


def end(found: Engine) -> None:
    """Stop and remove the container that keeps its books in a volume."""
    (name,) = found("ps", "--quiet", f"--filter=volume={NAME}").split()
    found("stop", "--time=30", name)
    found("rm", name)
