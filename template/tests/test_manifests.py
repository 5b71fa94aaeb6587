"""What deploy/kubernetes says, against what the service does and against itself."""

from functools import cache
from http.client import HTTPS_PORT
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer.main
import yaml
from fastapi import FastAPI
from starlette.routing import Match

from app.cascade import config
from app.cli import cli
from app.http.drain import LAST_WORDS
from app.main import create_app
from app.settings import EnvSettings, Settings

ROOT = Path(__file__).resolve().parents[1]
CASCADE = ROOT / "tests" / "cascade.toml"
TREE = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (TREE / "overlays").iterdir())
A_KEY = f"tester:use:{'0' * 64}"


@cache
def read(path: Path) -> dict[str, Any]:
    """One YAML document."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def resource(kind: str) -> dict[str, Any]:
    """The one resource of a kind in the base."""
    folder = TREE / "base"
    listed = [read(folder / name) for name in read(folder / "kustomization.yaml")["resources"]]
    (found,) = [document for document in listed if document["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    """The Deployment's pod template."""
    template: dict[str, Any] = resource("Deployment")["spec"]["template"]
    return template


def overlay_of(name: str) -> dict[str, Any]:
    """An overlay's kustomization."""
    return read(TREE / "overlays" / name / "kustomization.yaml")


def gateway() -> dict[str, Any]:
    """The route of the component `gateway`."""
    return read(TREE / "components" / "gateway" / "httproute.yaml")


def let_in(path: str) -> bool:
    """Whether the gateway passes a path on."""
    (rule,) = gateway()["spec"]["rules"]
    assert all(match["path"]["type"] == "PathPrefix" for match in rule["matches"])
    prefixes = [match["path"]["value"] for match in rule["matches"]]
    return any(f"{path}/".startswith(f"{prefix}/") for prefix in prefixes)


def container() -> dict[str, Any]:
    """The pod's one container."""
    (found,) = pod()["spec"]["containers"]
    only: dict[str, Any] = found
    return only


def environment(overlay: str) -> dict[str, str]:
    """What an overlay's ConfigMap puts into the container, the base's values included."""
    folder = TREE / "overlays" / overlay
    kustomization = read(folder / "kustomization.yaml")
    values: dict[str, str] = {}
    for parent in kustomization.get("resources", []):
        beneath = (folder / parent).resolve()
        values |= (
            environment(beneath.name)
            if beneath.parent == folder.parent
            else literals(read(beneath / "kustomization.yaml"))
        )
    for component in kustomization.get("components", []):
        values |= literals(read((folder / component).resolve() / "kustomization.yaml"))
    return values | literals(kustomization)


def literals(kustomization: dict[str, Any]) -> dict[str, str]:
    """The entries of a kustomization's generated ConfigMaps."""
    maps = kustomization.get("configMapGenerator", [])
    assert all(entry["name"] == config_name() for entry in maps)
    return dict(line.split("=", 1) for entry in maps for line in entry["literals"])


def config_name() -> str:
    """The ConfigMap that the container reads."""
    name: str = container()["envFrom"][0]["configMapRef"]["name"]
    return name


def serves(app: FastAPI, path: str) -> bool:
    """Whether the application has a route for GET `path`."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    return any(route.matches(scope)[0] is Match.FULL for route in app.routes)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(Settings(simulator="on", cascade_file=CASCADE))


def test_the_command_starts_one_process_on_the_port_that_is_named() -> None:
    python, dash_m, package, command, *arguments = container()["command"]
    assert (python, dash_m, package, command) == ("python", "-m", "app", "serve")
    serve: Any = typer.main.get_command(cli)
    options = serve.commands["serve"].make_context("serve", arguments).params
    assert options["host"] == "0.0.0.0"
    assert options["workers"] == 1
    (port,) = container()["ports"]
    assert options["port"] == port["containerPort"]


def test_everything_asks_for_that_port_by_its_name() -> None:
    (port,) = container()["ports"]
    (service_port,) = resource("Service")["spec"]["ports"]
    ((allowed,),) = [rule["ports"] for rule in resource("NetworkPolicy")["spec"]["ingress"]]
    probes = [probe["httpGet"]["port"] for name, probe in container().items() if "Probe" in name]
    assert len(probes) == 3
    assert {service_port["targetPort"], allowed["port"], *probes} == {port["name"]}


@pytest.mark.parametrize(
    ("probe", "path"),
    [
        ("startupProbe", "/liveness"),
        ("livenessProbe", "/liveness"),
        ("readinessProbe", "/readiness"),
    ],
)
def test_a_probe_asks_a_path_that_exists(app: FastAPI, probe: str, path: str) -> None:
    assert container()[probe]["httpGet"]["path"] == path
    assert serves(app, path)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting(app: FastAPI, overlay: str) -> None:
    assert app
    known = {field.upper() for kind in EnvSettings.__subclasses__() for field in kind.model_fields}
    assert environment(overlay)
    assert set(environment(overlay)) <= known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_starts_with_what_an_overlay_sets(
    monkeypatch: pytest.MonkeyPatch, overlay: str
) -> None:
    for name, value in environment(overlay).items():
        monkeypatch.setenv(name, value)
    if overlay != "dev":
        monkeypatch.setenv("API_KEYS", A_KEY)
        for name in config.load(CASCADE).live_keys():
            monkeypatch.setenv(name, "a-key")
    settings = Settings(cascade_file=CASCADE)
    assert settings.environment == ("development" if overlay == "dev" else "production")
    assert create_app(settings)


def test_keys_come_from_the_cluster_and_win() -> None:
    name = resource("Deployment")["metadata"]["name"]
    assert container()["envFrom"] == [
        {"configMapRef": {"name": config_name()}},
        {"secretRef": {"name": f"{name}-secrets"}},
    ]


def test_no_secret_is_in_the_tree() -> None:
    for path in TREE.rglob("*.yaml"):
        document = read(path)
        assert document.get("kind") != "Secret", path
        assert "secretGenerator" not in document, path
    for overlay in OVERLAYS:
        assert not {name for name in environment(overlay) if name.endswith(("_KEY", "_KEYS"))}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain(overlay: str) -> None:
    values = environment(overlay)
    drain, grace = (
        float(values.get(name.upper(), Settings.model_fields[name].default))
        for name in ("drain_seconds", "shutdown_grace_seconds")
    )
    before = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before > 0
    assert pod()["spec"]["terminationGracePeriodSeconds"] > before + drain + grace + LAST_WORDS


def test_a_rollout_takes_no_pod_away_before_the_next_is_ready() -> None:
    assert resource("Deployment")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_every_selector_selects_the_pods() -> None:
    labels = pod()["metadata"]["labels"].items()
    selectors = [
        resource("Deployment")["spec"]["selector"]["matchLabels"],
        resource("Service")["spec"]["selector"],
        resource("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        resource("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in pod()["spec"]["topologySpreadConstraints"]
        ),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels


def test_everything_has_the_name_of_the_service() -> None:
    name = resource("Deployment")["metadata"]["name"]
    ours = {"app.kubernetes.io/name": name}
    documents = [read(path) for path in TREE.rglob("[!.]*.yaml")]
    for metadata in (document["metadata"] for document in documents if "metadata" in document):
        assert metadata["name"] == name
        assert metadata.get("labels", ours) == ours
    (labels,) = read(TREE / "base" / "kustomization.yaml")["labels"]
    assert labels == {"pairs": ours, "includeTemplates": True}
    assert pod()["metadata"]["labels"] == ours


def test_a_pod_reaches_names_and_providers_and_nothing_else() -> None:
    names, providers = resource("NetworkPolicy")["spec"]["egress"]
    assert names == {"ports": [{"port": 53, "protocol": each} for each in ("UDP", "TCP")]}
    assert providers["ports"] == [{"port": HTTPS_PORT, "protocol": "TCP"}]
    excepted = {each for peer in providers["to"] for each in peer["ipBlock"]["except"]}
    assert {"169.254.0.0/16", "fd00:ec2::254/128"} <= excepted


def test_the_autoscaler_scales_the_deployment() -> None:
    deployment = resource("Deployment")
    target = resource("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]


def test_the_pod_has_no_rights() -> None:
    spec = pod()["spec"]
    assert spec["serviceAccountName"] == resource("ServiceAccount")["metadata"]["name"]
    assert spec["automountServiceAccountToken"] is False
    assert resource("ServiceAccount")["automountServiceAccountToken"] is False
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_overlay_gives_the_image_a_tag() -> None:
    for overlay in {"dev", "production"}:
        (image,) = read(TREE / "overlays" / overlay / "kustomization.yaml")["images"]
        assert image["name"] == container()["image"]
        assert image["newTag"] not in {"", "latest"}


def test_no_file_is_forgotten() -> None:
    for kustomization in TREE.rglob("kustomization.yaml"):
        beside = {path.name for path in kustomization.parent.glob("*.yaml")}
        listed = {name for name in read(kustomization).get("resources", []) if ".." not in name}
        assert beside - {"kustomization.yaml"} == listed, kustomization


def test_redis_may_be_reached_where_the_ledger_looks_for_it() -> None:
    component = read(TREE / "components" / "redis" / "kustomization.yaml")
    url = urlsplit(literals(component)["LEDGER_URL"])
    (patch,) = component["patches"]
    (change,) = yaml.safe_load(patch["patch"])
    assert patch["target"] == {"kind": "NetworkPolicy"}
    assert (change["op"], change["path"]) == ("add", "/spec/egress/-")
    (peer,) = change["value"]["to"]
    assert peer == {"podSelector": {"matchLabels": {"app.kubernetes.io/name": url.hostname}}}
    assert change["value"]["ports"] == [{"port": url.port, "protocol": "TCP"}]
    assert "../../components/redis" in overlay_of("production")["components"]


def test_the_gateway_lets_in_the_api_and_nothing_else(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    guarded = {path for path in paths if any("security" in each for each in paths[path].values())}
    assert "/api/query" in guarded
    assert {path for path in paths if let_in(path)} == guarded
    assert not any(map(let_in, ["/docs", "/openapi.json"]))


def test_the_gateway_finds_the_service_and_waits_for_its_answers() -> None:
    (rule,) = gateway()["spec"]["rules"]
    service = resource("Service")
    (port,) = service["spec"]["ports"]
    assert rule["backendRefs"] == [{"name": service["metadata"]["name"], "port": port["port"]}]
    for name in OVERLAYS:
        deadline = int(environment(name)["REQUEST_DEADLINE_SECONDS"])
        assert int(rule["timeouts"]["request"].removesuffix("s")) > deadline


def test_every_component_that_an_overlay_may_have_is_there() -> None:
    named = {
        line.rpartition("/")[2]
        for path in TREE.glob("overlays/*/kustomization.yaml")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "../../components/" in line
    }
    assert named == {path.name for path in (TREE / "components").iterdir()}
