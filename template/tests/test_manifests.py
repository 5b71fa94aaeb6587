"""What deploy/kubernetes says, against what the service does and against itself."""

from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from fastapi import FastAPI
from starlette.routing import Match

from app.cascade import config
from app.cli import cli
from app.main import create_app
from app.settings import EnvSettings, Settings

ROOT = Path(__file__).resolve().parents[1]
CASCADE = ROOT / "tests" / "cascade.toml"
TREE = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (TREE / "overlays").iterdir())
A_KEY = f"tester:use:{'0' * 64}"


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


@pytest.mark.parametrize("overlay", ["dev", "production"])
def test_an_overlay_takes_its_keys_from_the_cluster(overlay: str) -> None:
    patches = read(TREE / "overlays" / overlay / "kustomization.yaml")["patches"]
    (patch,) = [each for each in patches if "target" in each]
    (change,) = yaml.safe_load(patch["patch"])
    assert change["op"] == "add"
    assert change["path"] == "/spec/template/spec/containers/0/envFrom/-"
    name = resource("Deployment")["metadata"]["name"]
    assert change["value"] == {"secretRef": {"name": f"{name}-secrets"}}


def test_no_secret_is_in_the_tree() -> None:
    for path in TREE.rglob("*.yaml"):
        document = read(path)
        assert document["kind"] != "Secret", path
        assert "secretGenerator" not in document, path
    for overlay in OVERLAYS:
        assert not {name for name in environment(overlay) if name.endswith(("_KEY", "_KEYS"))}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain(overlay: str) -> None:
    fallback = Settings.model_fields["shutdown_grace_seconds"].default
    grace = int(environment(overlay).get("SHUTDOWN_GRACE_SECONDS", fallback))
    before = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before > 0
    assert pod()["spec"]["terminationGracePeriodSeconds"] > before + grace


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
