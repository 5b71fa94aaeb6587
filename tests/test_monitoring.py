"""Rules and dashboard, run: by a parser, by promtool, and by a Prometheus that scrapes under load.

The binaries `prometheus` and `promtool` are in no wheel. Where they are missing, the two tests that
need them are skipped and the end of the run says so; CI installs them.
"""

import json
import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml

from tests.conftest import Render
from tests.documents import blocks
from tests.drive import ACCEPTED, REJECTED
from tests.processes import environment, free_ports, run, serving, wait_for
from tests.variants import FULLEST
from tests.workshop import Workshop

SLUG = "my-cascade"
SECONDS = 60
QUERIES = (
    ACCEPTED,
    REJECTED,
    "Prove that the square root of 2 is irrational",
    "[[drafter:500]] What is AI?",
    "[[both:401]] What is AI?",
)


def rules(project: Path) -> list[dict[str, Any]]:
    text = (project / "deploy/monitoring/alerts.yaml").read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def dashboard_queries(project: Path) -> list[tuple[str, str]]:
    """Each panel's title and what it asks for, over half a minute."""
    text = (project / "deploy/monitoring/dashboard.json").read_text(encoding="utf-8")
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "30s"))
        for panel in json.loads(text)["panels"]
        for target in panel["targets"]
    ]


def binary(name: str, workshop: Workshop) -> str:
    """The command, or a skip that the end of the run tells of; GitHub must have it."""
    found = shutil.which(name)
    if not found:
        missing = f"no {name}: install it (Debian has it in the package prometheus)"
        assert not os.environ.get("GITHUB_ACTIONS"), missing
        workshop.tell(f"NOT RUN: {Path(__file__).name}, {missing}")
        pytest.skip(missing)
    return found


def test_every_query_is_one_of_prometheus(render: Render) -> None:
    project = render(FULLEST.answers)
    asked = [rule["expr"] for rule in rules(project)]
    asked += [query for _, query in dashboard_queries(project)]
    assert len(asked) > 30
    for query in asked:
        promql_parser.parse(query)


def test_promtool_finds_nothing_wrong_and_every_alert_fires(
    render: Render, workshop: Workshop
) -> None:
    promtool = binary("promtool", workshop)
    monitoring = render(FULLEST.answers) / "deploy" / "monitoring"
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml", cwd=monitoring)
    run(promtool, "check", "config", "prometheus.yaml", cwd=monitoring)
    (scrape,) = blocks(monitoring.parents[1] / "docs/prometheus.md")
    (monitoring / "documented.yaml").write_text(scrape.text, encoding="utf-8")
    # Its key is in a file that is not here.
    run(promtool, "check", "config", "--syntax-only", "documented.yaml", cwd=monitoring)
    assert "SUCCESS" in run(promtool, "test", "rules", "alerts_test.yaml", cwd=monitoring)


def test_a_prometheus_scrapes_a_service_under_load(
    render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    """Nothing fails to be scraped, every rule evaluates, every panel has data."""
    prometheus, promtool = (binary(name, workshop) for name in ("prometheus", "promtool"))
    project = render(FULLEST.answers)
    workshop.install(project)
    command = (project / ".venv/bin" / SLUG, "serve", "--port", "0", "--workers", "2")
    limits = {"RATE_LIMIT": "1000000", "UPSTREAM_ATTEMPTS": "1"}
    with serving(*command, cwd=project, env=limits) as service:
        with httpx.Client(base_url=service.url) as client:
            wait_for(lambda: answers(client, "/readiness"), 20)
        with (
            loaded(service.url),
            scraping(prometheus, project, service.url, tmp_path) as client,
        ):
            time.sleep(SECONDS)
            asked = check_dashboard(client, project)
            checked = check_rules(client, project)
            scrapes = check_scrapes(client)
        told = httpx.get(f"{service.url}/metrics")
        check_counts(service.url, told.text)
        check_lint(promtool, told.text)
        assert service.stop() == 0, service.log
    workshop.tell(
        f"Prometheus under load: {scrapes} scrapes in {SECONDS} s without an error,"
        f" {checked} rules evaluated, {asked} queries of the dashboard returned data"
    )


@contextmanager
def loaded(url: str) -> Iterator[None]:
    """Queries of every outcome, and streams, until it ends."""
    ended = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not ended.is_set():
                body = {"query": QUERIES[number % len(QUERIES)]}
                client.post("/api/query/stream" if number % 2 else "/api/query", json=body)
                number += 1

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask, number) for number in range(4)]
        try:
            yield
        finally:
            ended.set()
    for each in asking:
        each.result()


@contextmanager
def scraping(prometheus: str, project: Path, url: str, folder: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that runs with the project's own configuration, each second."""
    monitoring = project / "deploy" / "monitoring"
    text = (monitoring / "prometheus.yaml").read_text(encoding="utf-8")
    text = text.replace("api:8000", url.removeprefix("http://")).replace(": 5s", ": 1s")
    (folder / "prometheus.yaml").write_text(text, encoding="utf-8")
    shutil.copy(monitoring / "alerts.yaml", folder)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    process = subprocess.Popen(command, env=environment(), cwd=folder)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10, trust_env=False) as client:
            wait_for(lambda: answers(client, "/-/ready"), 20)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx.TransportError:
        return False


def ask_prometheus(client: httpx.Client, query: str) -> list[float]:
    """The values of a query's result."""
    answer = client.get("/api/v1/query", params={"query": query})
    assert answer.is_success, (query, answer.text)
    return [float(each["value"][1]) for each in answer.json()["data"]["result"]]


def check_scrapes(client: httpx.Client) -> int:
    """How often it has scraped; each time it got an answer that it could read."""
    (target,) = client.get("/api/v1/targets").json()["data"]["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    window = f"[{SECONDS}s]"
    assert ask_prometheus(client, f"min_over_time(up{window})") == [1.0]
    (scrapes,) = ask_prometheus(client, f"count_over_time(up{window})")
    assert scrapes > SECONDS * 0.8
    return int(scrapes)


def check_rules(client: httpx.Client, project: Path) -> int:
    """How many rules it evaluates; each does so without an error."""
    groups = client.get("/api/v1/rules").json()["data"]["groups"]
    found = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {rule["alert"] for rule in rules(project)}
    for rule in found:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
        assert not rule["lastEvaluation"].startswith("0001"), rule["name"]
    return len(found)


def check_dashboard(client: httpx.Client, project: Path) -> int:
    """How many queries the dashboard has; each finds a number, though an idle route has none."""
    queries = dashboard_queries(project)
    for title, query in queries:
        values = ask_prometheus(client, query)
        assert any(math.isfinite(value) for value in values), (title, query, values)
    return len(queries)


def check_lint(promtool: str, told: str) -> None:
    """promtool knows the conventions for names, units and types; what it minds it prints."""
    command = [promtool, "check", "metrics"]
    linted = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def check_counts(url: str, told: str) -> None:
    """What the workers count together is what the books have."""
    counted = sum(
        float(line.rpartition(" ")[2])
        for line in told.splitlines()
        if line.startswith("cascadeflow_queries_total{")
    )
    assert counted == httpx.get(f"{url}/api/stats").json()["total_queries"] > 100
