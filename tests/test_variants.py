"""Every variant, from the answers to the clean end of its process."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest

from tests.conftest import Render
from tests.drive import RATE_LIMIT, check_log, drive
from tests.processes import serving
from tests.snapshots import listed
from tests.stages import Notebook, Stage
from tests.test_deploy import check_docker, check_kubernetes
from tests.variants import FULLEST, LEANEST, VARIANTS, Variant
from tests.workshop import DEPLOYING, Extent, Workshop, check_lint, check_tests, check_types, files

SLUG = "my-cascade"


def extent(variant: Variant) -> Extent:
    """How many of its own tests a variant runs; its service alone decides."""
    on = variant.on - set(DEPLOYING)
    if on in (LEANEST.on, FULLEST.on - set(DEPLOYING)):
        return Extent.WHOLE
    # With those two, they show any two switches both on, both off, and each without the other.
    return Extent.REACHED if len(on) == 1 else Extent.OWN


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_passes_every_stage(
    variant: Variant,
    render: Render,
    workshop: Workshop,
    notebook: Notebook,
    kustomize: list[str],
) -> None:
    def stage(name: str) -> AbstractContextManager[Stage]:
        return notebook.stage(variant.name, name)

    with stage("render"):
        project = render(variant.answers)
        assert files(project) == listed(variant.on), "as meant? then `make snapshots`"
    pass_every_stage(project, variant, extent(variant), workshop, kustomize, stage)


def pass_every_stage(
    project: Path,
    variant: Variant,
    tests: Extent,
    workshop: Workshop,
    kustomize: list[str],
    stage: Callable[[str], AbstractContextManager[Stage]] = lambda _: nullcontext(Stage()),
) -> None:
    """Take a rendered project through all stages."""
    with stage("install"):
        workshop.install(project)
    programs = project / ".venv" / "bin"
    with stage("lint"):
        check_lint(project, programs)
    with stage("types"):
        check_types(project, programs, workshop)
    with stage("deploy"):
        if "docker" in variant.on:
            check_docker(project)
        if "kubernetes" in variant.on:
            check_kubernetes(project, variant.on, kustomize)
    with stage("tests") as now:
        now.shared = check_tests(project, variant.on, tests, workshop)
    with ExitStack() as running:
        with stage("boot"):
            command = (programs / SLUG, "serve", "--port", "0")
            limit = {"RATE_LIMIT": str(RATE_LIMIT)}
            service = running.enter_context(serving(*command, cwd=project, env=limit))
        with stage("drive"):
            drive(service.url, variant.on)
        with stage("stop"):
            assert service.stop() == 0, service.log
            check_log(service.log)
