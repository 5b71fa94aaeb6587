"""What the built manifests promise a cluster, beyond being valid: `test_deploy.py` builds them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_deploy import build
from tests.variants import Variant
from tests.workshop import Workshop

SLUG = "my-cascade"
LABELS = {"app.kubernetes.io/name": SLUG}
Resources = dict[str, Any]
"""The built resources by kind; of each kind there is one."""


@pytest.fixture(scope="module")
def project(workshop: Workshop) -> Path:
    return workshop.fresh(Variant(frozenset({"prometheus", "kubernetes"})))


def built(kustomize: list[str], project: Path, overlay: str) -> Resources:
    resources = build(kustomize, project, overlay)
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    assert all(resource["metadata"]["name"].startswith(SLUG) for resource in resources)
    return by_kind


@pytest.fixture(scope="module")
def production(kustomize: list[str], project: Path) -> Resources:
    """All that there is: the overlay with the most in it."""
    return built(kustomize, project, "production-prometheus")


@pytest.fixture
def pod(production: Resources) -> dict[str, Any]:
    found: dict[str, Any] = production["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    only: dict[str, Any] = found
    return only


def test_production_consists_of_these(
    production: Resources, kustomize: list[str], project: Path
) -> None:
    kinds = {"ServiceAccount", "Deployment", "Service", "HorizontalPodAutoscaler", "ConfigMap"}
    kinds |= {"PodDisruptionBudget", "NetworkPolicy"}
    assert production.keys() == kinds | {"ServiceMonitor", "PrometheusRule"}
    assert built(kustomize, project, "production").keys() == kinds
    for resource in production.values():
        assert resource["metadata"]["labels"] == LABELS
    assert production["Deployment"]["spec"]["template"]["metadata"]["labels"] == LABELS


def test_each_environment_is_set_up_so(
    production: Resources, kustomize: list[str], project: Path
) -> None:
    both = {
        "DAILY_BUDGET": "10.0",
        "REQUEST_DEADLINE_SECONDS": "60",
        "SHUTDOWN_GRACE_SECONDS": "20",
    }
    assert production["ConfigMap"]["data"] == both | {
        "ENVIRONMENT": "production",
        "SIMULATOR": "off",
        "LOG_LEVEL": "INFO",
        "LEDGER_URL": "redis://redis:6379/0",
    }
    dev = built(kustomize, project, "dev")
    assert dev["ConfigMap"]["data"] == both | {
        "ENVIRONMENT": "development",
        "SIMULATOR": "on",
        "LOG_LEVEL": "DEBUG",
        "LEDGER_URL": "memory://",
    }
    # One pod, and nothing that would make it more or hold it.
    assert dev["Deployment"]["spec"]["replicas"] == 1
    assert dev.keys() == production.keys() - {
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "ServiceMonitor",
        "PrometheusRule",
    }
    (api,) = dev["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert api["image"] == f"{SLUG}:dev"


def test_production_runs_a_version_from_a_registry(container: dict[str, Any]) -> None:
    assert container["image"] == f"registry.example.com/{SLUG}:0.1.0"
    assert container["imagePullPolicy"] == "IfNotPresent"
    secret = {"secretRef": {"name": f"{SLUG}-secrets"}}
    assert [*container["envFrom"][0]] == ["configMapRef"]
    assert container["envFrom"][1:] == [secret]


def test_a_rollout_adds_before_it_takes(production: Resources) -> None:
    spec = production["Deployment"]["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert 1 <= spec["revisionHistoryLimit"] <= 5


def test_probes_give_a_start_its_time_and_notice_an_end(container: dict[str, Any]) -> None:
    startup, ready, live = (
        container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")
    )
    for probe in (startup, ready, live):
        assert probe.keys() == {"httpGet", "periodSeconds", "timeoutSeconds", "failureThreshold"}
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    # A minute to start, asked every second; off the traffic within ten; a restart only after more.
    assert (startup["periodSeconds"], startup["failureThreshold"]) == (1, 60)
    assert ready["periodSeconds"] * ready["failureThreshold"] <= 10
    assert live["periodSeconds"] * live["failureThreshold"] >= 30
    assert live["timeoutSeconds"] >= ready["timeoutSeconds"] >= 3


def test_the_scheduler_and_the_kernel_know_what_a_pod_needs(container: dict[str, Any]) -> None:
    # No CPU limit: throttling would stall every answer in the pod at once.
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "128Mi"},
        "limits": {"memory": "512Mi"},
    }


def test_pods_are_spread_over_zones_and_nodes(pod: dict[str, Any]) -> None:
    spread = pod["topologySpreadConstraints"]
    assert [constraint["topologyKey"] for constraint in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    for constraint in spread:
        assert constraint["maxSkew"] == 1
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["matchLabelKeys"] == ["pod-template-hash"]
        assert constraint["labelSelector"] == {"matchLabels": LABELS}


def test_a_pod_is_told_apart_from_its_neighbours(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    assert pod["enableServiceLinks"] is False
    assert container["name"] == "api"
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_load_adds_pods_and_its_end_takes_them_slowly(production: Resources) -> None:
    spec = production["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert spec["metrics"] == [{"type": "Resource", "resource": cpu}]
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300


def test_a_drain_takes_one_pod_at_a_time(production: Resources) -> None:
    spec = production["PodDisruptionBudget"]["spec"]
    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_the_network_lets_through_what_is_needed(production: Resources) -> None:
    spec = production["NetworkPolicy"]["spec"]
    assert spec["podSelector"] == {"matchLabels": LABELS}
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [rule.keys() for rule in spec["ingress"]] == [{"ports"}]
    names, models, neighbours = spec["egress"]
    assert names == {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert models["ports"] == [{"port": 443, "protocol": "TCP"}]
    # Anywhere but a cloud's metadata: in link-local addresses, and at AWS's IPv6 address.
    assert [target["ipBlock"] for target in models["to"]] == [
        {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]},
        {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]},
    ]
    assert neighbours == {
        "to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "redis"}}}],
        "ports": [{"port": 6379, "protocol": "TCP"}],
    }


def test_the_service_speaks_http_on_port_80(production: Resources) -> None:
    (port,) = production["Service"]["spec"]["ports"]
    assert (port["port"], port["appProtocol"]) == (80, "http")


def test_prometheus_scrapes_in_time(production: Resources) -> None:
    (endpoint,) = production["ServiceMonitor"]["spec"]["endpoints"]
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("30s", "10s")
    assert endpoint["authorization"] == {"credentials": {"name": f"{SLUG}-metrics", "key": "key"}}


def test_the_gateway_listens_to_one_name(project: Path) -> None:
    path = project / "deploy/kubernetes/components/gateway/httproute.yaml"
    route = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert route["spec"]["hostnames"] == [f"{SLUG}.example.com"]


def test_kustomizations_say_what_they_are(project: Path) -> None:
    for path in (project / "deploy").rglob("kustomization.yaml"):
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = "Component" if "components" in path.parts else "Kustomization"
        version = "v1alpha1" if kind == "Component" else "v1beta1"
        assert (told["kind"], told["apiVersion"]) == (kind, f"kustomize.config.k8s.io/{version}")
