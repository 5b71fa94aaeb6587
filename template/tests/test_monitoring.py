"""What alerts and dashboard ask for, against what a running service tells."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import Depends, Request
from prometheus_client.parser import text_string_to_metric_families

from app.features import Feature, Standing, decided
from app.main import create_app
from app.settings import Settings
from tests.conftest import ACCEPTED, DIRECT, REJECTED, Background, client_of, started

ROOT = Path(__file__).resolve().parents[1]
MONITORING = ROOT / "deploy" / "monitoring"

SELECTOR = re.compile(r"(?P<name>cascadeflow_\w+)(?:\{(?P<matchers>[^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without) \(([^)]*)\)")
AGGREGATED = re.compile(r"\b(?:sum|min|max)\b(?: by \(([^)]*)\))?")
OF_PROMETHEUS = {"instance", "job", "namespace"}
"""Labels that Prometheus adds to what it reads."""

Labels = dict[str, str]


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def variables() -> dict[str, dict[str, Any]]:
    """What the dashboard lets people choose, by name."""
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


def queries() -> Iterator[tuple[str, str]]:
    """What is asked for, and by whom."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for name in ("job", "namespace"):
        yield name, variables()[name]["query"]


@pytest.fixture
def told(
    background: Background, make_settings: Callable[..., Settings]
) -> Iterator[dict[str, list[Labels]]]:
    """The labels of every sample by name, after queries of every outcome."""

    async def stand() -> Standing:
        return Standing("cellar", True, "open")

    def decide(request: Request) -> None:
        decided(request, "leaning", "shrugged")

    app = create_app(make_settings())
    app.state.features.append(Feature(name="leaning", standing=stand))
    app.add_api_route("/door", lambda: None, dependencies=[Depends(decide)])
    service = background.run(started(app))
    with client_of(service.url) as client:
        client.get("/door")
        for query in (ACCEPTED, REJECTED, DIRECT, "[[both:500]] hi"):
            client.post("/api/query", json={"query": query})
        samples: dict[str, list[Labels]] = {}
        for family in text_string_to_metric_families(client.get("/metrics").text):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append(sample.labels)
    yield samples
    service.stop()


def grouped_by(query: str) -> set[str]:
    """The labels that a query keeps."""
    return {name.strip() for found in GROUPED.findall(query) for name in found.split(",")}


def matches(labels: Labels, matchers: list[tuple[str, str, str]]) -> bool:
    """Whether a sample is asked for; what Prometheus adds is not looked at."""
    return all(
        bool(re.fullmatch(re.escape(value) if kind == "=" else value, labels.get(name, "")))
        == (kind != "!~")
        for name, kind, value in matchers
        if name not in OF_PROMETHEUS
    )


def test_a_running_service_has_every_metric_and_label_that_is_asked_for(
    told: dict[str, list[Labels]],
) -> None:
    asked = 0
    for who, query in queries():
        selectors = [*SELECTOR.finditer(query)]
        assert selectors, who
        for selector in selectors:
            samples = told.get(selector["name"], [])
            matchers = MATCHER.findall(selector["matchers"] or "")
            assert any(matches(labels, matchers) for labels in samples), (who, selector[0])
            known = {name for labels in samples for name in labels} | OF_PROMETHEUS
            grouped = {
                name.strip() for found in GROUPED.findall(query) for name in found.split(",")
            }
            assert grouped <= known, (who, selector[0])
            asked += 1
    assert asked > 40


def test_an_alert_is_about_this_service_and_says_in_which_namespace() -> None:
    job = variables()["job"]["current"]["value"]
    for rule in alerts():
        for selector in SELECTOR.finditer(rule["expr"]):
            assert ("job", "=", job) in MATCHER.findall(selector["matchers"]), rule["alert"]
        for kept in AGGREGATED.findall(rule["expr"]):
            assert kept.startswith("job, namespace"), rule["alert"]


def test_every_panel_shows_the_service_that_was_chosen() -> None:
    chosen = [("job", "=", "$job"), ("namespace", "=~", "$namespace")]
    for panel in panels():
        for target in panel["targets"]:
            for selector in SELECTOR.finditer(target["expr"]):
                assert MATCHER.findall(selector["matchers"])[:2] == chosen, panel["title"]
    namespace = variables()["namespace"]
    # A Prometheus outside of a cluster adds no namespace, which this matches too.
    assert (namespace["includeAll"], namespace["allValue"]) == (True, ".*")
    assert namespace["current"]["value"] == "$__all"


def test_every_legend_names_labels_that_its_query_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named <= grouped_by(target["expr"]), panel["title"]


def test_every_alert_has_a_severity_a_cure_and_a_test() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
    headings = {line[3:].strip() for line in runbook.splitlines() if line.startswith("## ")}
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    names = {rule["alert"] for rule in alerts()}
    assert headings == names == {test["name"] for test in tests} - {"healthy"}
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_no_two_panels_lie_on_each_other() -> None:
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels()
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len({panel["id"] for panel in panels()}) == len(panels())
