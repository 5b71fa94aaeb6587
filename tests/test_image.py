"""The image built, inspected, run as it runs in production, loaded, stopped; its page followed.

It takes a container engine: docker or podman, whichever the machine has. GitHub's have
one; elsewhere the test is skipped where there is none, and the end of the run says so.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, Any

import pytest
import yaml

from tests import docker_page
from tests.conftest import Render
from tests.containers import PYTHON_IMAGE, UV_IMAGE, Engine, engine
from tests.processes import wait_for
from tests.variants import FULLEST, ROOT
from tests.workshop import Workshop

IMAGE = "localhost/my-cascade"
REQUESTS = 1000
MEMORY = 512  # MiB
LARGEST = 90_000_000  # bytes, what our layers add to those of the base image
SECRET = "canary-0f6d1e57"
HARDENED = (
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    f"--memory={MEMORY}m",
    "--cpus=0.5",
    "--pids-limit=256",
)
STUB = """
import http.server
class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8000), Broken).serve_forever()
"""


def test_the_image_is_built_and_serves_and_stops(
    render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    with engine() as found:
        if not found:
            missing = "no container engine that runs: install podman, or docker with its daemon"
            tell_that_not_run(workshop, missing)
            pytest.skip(missing)
        project = render(FULLEST.answers)
        bases = {"PYTHON_IMAGE": PYTHON_IMAGE, "UV_IMAGE": UV_IMAGE}
        check_that_a_missing_lock_is_told(found, project, bases)
        workshop.install(project)
        hide_secrets(project)
        found.build(project, IMAGE, **bases, VERSION="1.2.3", REVISION="abc")
        check_layers(found, workshop, tmp_path)
        check_configuration(found)
        check_content(found)
        check_health_check(found)
        key, entry = made_key(found)
        environment = ("--env=SIMULATOR=on", f"--env=API_KEYS={entry}", "--env=RATE_LIMIT=1000000")
        name = found("run", "--detach", *HARDENED, *environment, IMAGE).strip()
        try:
            peak = check_load(found, workshop, name, key)
            # The manifests ask for what was measured, and allow what was tried.
            (pod,) = manifest(project)["spec"]["template"]["spec"]["containers"]
            assert peak < mebibytes(pod["resources"]["requests"]["memory"])
            assert mebibytes(pod["resources"]["limits"]["memory"]) == MEMORY
            found("stop", "--time=30", name)
            logs = found.tries("logs", name)
            log = logs.stdout + logs.stderr
            state = json.loads(found("inspect", name))[0]["State"]
            assert (state["ExitCode"], state["OOMKilled"]) == (0, False), log
            assert "Traceback" not in log
        finally:
            found("rm", "--force", name)
        check_page(found, workshop, project, tmp_path)


def tell_that_not_run(workshop: Workshop, missing: str) -> None:
    if os.environ.get("GITHUB_ACTIONS"):
        pytest.fail(missing)
    workshop.tell(f"NOT RUN: {Path(__file__).name}, {missing}")


def check_that_a_missing_lock_is_told(found: Engine, project: Path, bases: dict[str, str]) -> None:
    # At the start of a line, or after BuildKit's numbers: elsewhere it is the command that says it.
    with pytest.raises(AssertionError, match=r"(?m)^(#\d+ [\d.]+ )?There is no uv\.lock: run 'uv"):
        found.build(project, IMAGE, **bases)


def hide_secrets(project: Path) -> None:
    """Leave a word where people leave secrets."""
    for name in (".env", ".env.production", "secrets.env", "notes.txt", "src/app/.env", ".git/x"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(f"OPENAI_API_KEY={SECRET}\n")
    (project / "src/app/__pycache__").mkdir(exist_ok=True)
    (project / "src/app/__pycache__/x.pyc").write_text(SECRET)


def check_layers(found: Engine, workshop: Workshop, tmp_path: Path) -> None:
    """No layer and no line of the history holds a secret, and ours are small."""
    archive = tmp_path / "image.tar"
    found("save", "--output", archive, IMAGE)
    names: list[str] = []
    with archive.open("rb") as file:
        leaking = list(leaks(file, names))
    archive.unlink()
    assert leaking == []
    assert any(name.endswith("/app/settings.py") for name in names)
    size, base = (int(inspected(found, image)["Size"]) for image in (IMAGE, PYTHON_IMAGE))
    ours = size - base
    workshop.tell(f"image: {ours / 1e6:.0f} MB of our own layers on a base of {base / 1e6:.0f} MB")
    assert ours < LARGEST


def leaks(archive: IO[bytes], names: list[str]) -> Iterator[str]:
    """The files that hold the secret, in an archive and in the archives in it; notes all names."""
    with tarfile.open(fileobj=archive) as files:
        for member in files:
            names.append(member.name)
            content = files.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if SECRET.encode() in content.read():
                yield member.name
            content.seek(0)
            with suppress(tarfile.ReadError):
                yield from leaks(content, names)


def inspected(found: Engine, image: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(found("image", "inspect", image))[0]
    return description


def check_configuration(found: Engine) -> None:
    config = inspected(found, IMAGE)["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Cmd"][:4] == ["python", "-m", "app", "serve"]
    assert not config.get("Entrypoint")
    assert set(config["ExposedPorts"]) == {"8000/tcp"}
    labels = {"title": "my-cascade", "version": "1.2.3", "revision": "abc"}
    for label, value in labels.items():
        assert config["Labels"][f"org.opencontainers.image.{label}"] == value


def check_content(found: Engine) -> None:
    """Nothing to install or compile with, and nothing that the user may change but /data."""
    look = """
import importlib.util, json, os, pathlib, shutil
tools = ["uv", "uvx", "pip", "pip3", "gcc", "cc", "make"]
modules = ["pip", "ensurepip", "setuptools", "pytest", "ruff", "mypy"]
app = pathlib.Path(importlib.util.find_spec("app").origin).parent
writable = {str(path) for top in ("/app", "/data", "/usr", "/etc") for path in
    [pathlib.Path(top), *pathlib.Path(top).rglob("*")]
    if not path.is_symlink() and os.access(path, os.W_OK)}
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "tools": [tool for tool in tools if shutil.which(tool)],
    "modules": [name for name in modules if importlib.util.find_spec(name)],
    "uncompiled": [str(file) for file in app.parent.rglob("*.py")
        if "pygments/lexers" not in str(file)
        and not pathlib.Path(importlib.util.cache_from_source(file)).exists()],
    "writable": sorted(writable),
}))
"""
    told = json.loads(found("run", "--rm", "--network=none", IMAGE, "python", "-c", look))
    assert told.pop("uncompiled") == []
    ids = [10001, 10001]
    assert told == {"ids": ids, "tools": [], "modules": [], "writable": ["/data"]}


def check_health_check(found: Engine) -> None:
    """The image's HEALTHCHECK fails where everything is answered with 500."""
    broken = found("run", "--detach", *HARDENED, IMAGE, "python", "-uc", STUB).strip()
    try:
        wait_for(lambda: healthy(found, broken).returncode == 1 and asked(found, broken))
    finally:
        found("kill", broken)
        found("rm", "--force", broken)


def asked(found: Engine, name: str) -> bool:
    """Whether the health check's request has come in."""
    logs = found.tries("logs", name)
    return '"GET /readiness' in logs.stdout + logs.stderr


def healthy(found: Engine, name: str) -> CompletedProcess[str]:
    image = inspected(found, IMAGE)
    # podman has it beside the configuration, docker in it.
    kind, *command = (image["Config"] | image)["Healthcheck"]["Test"]
    assert kind == "CMD"
    return found.tries("exec", name, *command)


def made_key(found: Engine) -> tuple[str, str]:
    """An API key and its entry, made as a newcomer makes them."""
    command = ("python", "-m", "app", "keys", "create", "me", "--entry")
    told = found("run", "--rm", "--network=none", IMAGE, *command)
    key, entry = (line.partition(":")[2].strip() for line in told.strip().splitlines())
    return key, entry


def check_load(found: Engine, workshop: Workshop, name: str, key: str) -> float:
    """REQUESTS queries from a container that shares the network; the peak of memory, in MiB."""
    load = (ROOT / "tests" / "image_load.py").read_text(encoding="utf-8")
    shared = (f"--network=container:{name}", f"--env=KEY={key}")
    command = ("run", "--rm", *shared, IMAGE, "python", "-c", load, str(REQUESTS))
    told = json.loads(found(*command, timeout=400))
    assert told["statuses"] == {"200": REQUESTS}
    assert told["counted"] == REQUESTS
    # What is no Python is in the image too.
    assert told["page"] == 200
    assert healthy(found, name).returncode == 0
    status = found("exec", name, "cat", "/proc/1/status")
    peak, now = (
        next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(field))
        for field in ("VmHWM:", "VmRSS:")
    )
    workshop.tell(
        f"image: {REQUESTS} requests in {told['seconds']:.0f} s with {MEMORY} MiB and half a core,"
        f" RSS {now:.0f} MiB, at most {peak:.0f} MiB"
    )
    return peak


def manifest(project: Path) -> dict[str, Any]:
    text = (project / "deploy/kubernetes/base/deployment.yaml").read_text(encoding="utf-8")
    deployment: dict[str, Any] = yaml.safe_load(text)
    return deployment


def mebibytes(quantity: str) -> int:
    assert quantity.endswith("Mi")
    return int(quantity.removesuffix("Mi"))


def check_page(found: Engine, workshop: Workshop, project: Path, folder: Path) -> None:
    """The page's own commands, where the engine can publish a port."""
    published = ("run", "--rm", "--publish=127.0.0.1::8000", PYTHON_IMAGE, "python", "-c", "")
    if found.tries(*published).returncode:
        tell_that_not_run(workshop, "docs/docker.md: the engine has no network, such as netavark")
        return
    # compose.yaml reads it; for the build it was there to be left out.
    (project / ".env").unlink()
    count = docker_page.follow(found, project, folder)
    workshop.tell(f"docs/docker.md: {count} commands carried out")
