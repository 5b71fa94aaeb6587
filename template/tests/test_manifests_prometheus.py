"""What the ServiceMonitor says, against the service and the manifests beside it."""

from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from starlette.routing import Match

from app.main import create_app
from app.settings import Settings
from tests.conftest import Serve, key_and_entry
from tests.test_manifests import environment, let_in

ROOT = Path(__file__).resolve().parents[1]
CASCADE = ROOT / "tests" / "cascade.toml"
TREE = ROOT / "deploy" / "kubernetes"


def read(path: str) -> dict[str, Any]:
    """One YAML document of the tree."""
    document: dict[str, Any] = yaml.safe_load((TREE / path).read_text(encoding="utf-8"))
    return document


def test_it_scrapes_a_path_that_exists_on_a_port_that_is_named() -> None:
    (endpoint,) = read("components/prometheus/servicemonitor.yaml")["spec"]["endpoints"]
    app: FastAPI = create_app(Settings(simulator="on", cascade_file=CASCADE))
    path = endpoint["path"]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    assert any(route.matches(scope)[0] is Match.FULL for route in app.routes)
    assert endpoint["port"] in {port["name"] for port in read("base/service.yaml")["spec"]["ports"]}


def test_it_selects_the_service() -> None:
    selector = read("components/prometheus/servicemonitor.yaml")["spec"]["selector"]["matchLabels"]
    assert selector
    assert selector.items() <= read("base/service.yaml")["metadata"]["labels"].items()


def test_an_overlay_uses_it() -> None:
    overlay = read("overlays/production-prometheus/kustomization.yaml")
    assert overlay["components"] == ["../../components/prometheus"]
    assert overlay["resources"] == ["../production"]


def test_a_scrape_brings_a_key_that_the_cluster_has(serve: Serve) -> None:
    (endpoint,) = read("components/prometheus/servicemonitor.yaml")["spec"]["endpoints"]
    name = read("base/deployment.yaml")["metadata"]["name"]
    # The operator's default is a bearer token.
    assert endpoint["authorization"] == {"credentials": {"name": f"{name}-metrics", "key": "key"}}
    values = environment("production-prometheus")
    assert "METRICS_ACCESS" not in values
    key, entry = key_and_entry("prometheus")
    client = serve(environment=values["ENVIRONMENT"], api_keys=entry)
    assert client.get("/metrics").status_code == 401
    scrape = client.get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert scrape.status_code == 200


def test_what_is_scraped_stays_in_the_cluster() -> None:
    (endpoint,) = read("components/prometheus/servicemonitor.yaml")["spec"]["endpoints"]
    assert not let_in(endpoint["path"])


def test_the_operator_gets_the_rules_that_everybody_gets() -> None:
    rule = read("components/prometheus/prometheusrule.yaml")
    alerts = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yaml").read_text(encoding="utf-8"))
    assert rule["spec"] == alerts
