"""What all tests share: the workshop, rendering, and the table at the end of a run."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_copie.plugin import Copie
from xdist.workermanage import WorkerController

from tests.stages import Notebook, read, table
from tests.test_deploy import kustomize as kustomize
from tests.variants import VARIANTS, Variant
from tests.workshop import VERSION, Workshop, checked

SHARED = pytest.StashKey[Path]()
DEPLOYED = [v for v in VARIANTS if v.on <= {"docker", "kubernetes", "prometheus"}]
Render = Callable[[Mapping[str, Any]], Path]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    handed_over = getattr(config, "workerinput", {}).get("shared")
    shared = Path(handed_over or tempfile.mkdtemp(prefix="cascade-template-"))
    config.stash[SHARED] = shared
    # A person's own defaults and trust must not decide what a test sees.
    settings = shared / "settings.yml"
    settings.write_text("{}\n")
    os.environ["COPIER_SETTINGS_PATH"] = str(settings)


def pytest_configure_node(node: WorkerController) -> None:
    """Called by pytest-xdist before it starts a worker."""
    node.workerinput["shared"] = str(node.config.stash[SHARED])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    notes = read(config.stash[SHARED] / "notes")
    if notes:
        terminalreporter.section("variants")
        for line in table(notes, len(VARIANTS)):
            terminalreporter.write_line(line)
    for line in Workshop(config.stash[SHARED]).lines():
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(config.stash[SHARED], ignore_errors=True)


@pytest.fixture(scope="session")
def workshop(request: pytest.FixtureRequest) -> Workshop:
    return Workshop(request.config.stash[SHARED])


@pytest.fixture(scope="session")
def notebook(request: pytest.FixtureRequest) -> Notebook:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    return Notebook(request.config.stash[SHARED] / "notes", worker)


@pytest.fixture(scope="session")
def template(workshop: Workshop) -> Path:
    """The template as a released repository."""
    return workshop.template()


@pytest.fixture(scope="session")
def plain(workshop: Workshop) -> Path:
    """The template as a folder; for many copies, since nothing is cloned."""
    return workshop.plain()


@pytest.fixture
def render(copie: Copie, template: Path) -> Render:
    """Render the template with some answers, the defaults for the others."""

    def render(answers: Mapping[str, Any]) -> Path:
        # Copier tells of every file, which would bury what a failing test says.
        with contextlib.redirect_stderr(io.StringIO()):
            result = copie.copy(checked(answers), template_dir=template, vcs_ref=VERSION)
        if result.exception:
            raise result.exception
        assert result.project_dir
        return result.project_dir

    return render


@dataclass(frozen=True)
class Rendered:
    """A rendered variant."""

    path: Path
    switches: frozenset[str]


@pytest.fixture(params=DEPLOYED, ids=lambda variant: variant.name)
def service(request: pytest.FixtureRequest, render: Render) -> Rendered:
    """Every way to deploy, one after the other; `test_variants.py` checks the files of all 64."""
    variant: Variant = request.param
    return Rendered(render(variant.answers), variant.on)
