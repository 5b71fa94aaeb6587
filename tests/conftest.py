"""What all tests share: the workshop, rendering, and the table at the end of a run."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import copier
import pytest
from packaging.version import Version
from pytest_copie.plugin import Copie
from xdist.workermanage import WorkerController

from tests.releases import Tally, history
from tests.stages import Notebook, read, table
from tests.test_deploy import kustomize as kustomize
from tests.variants import VARIANTS, Variant
from tests.workshop import VERSION, Workshop, checked

SHARED = pytest.StashKey[Path]()
Render = Callable[[Mapping[str, Any]], Path]
Copied = Callable[[Version, Variant], Path]


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
    tally = Tally(config.stash[SHARED] / "updates")
    for line in [*tally.table(), *Workshop(config.stash[SHARED]).lines()]:
        terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    # The forks of tests/mutation share what their process has made.
    if not hasattr(config, "workerinput") and "WORKSHOP" not in os.environ:
        shutil.rmtree(config.stash[SHARED], ignore_errors=True)


@pytest.fixture(scope="session")
def workshop(request: pytest.FixtureRequest) -> Workshop:
    # tests/mutation gives each mutant a workshop of its own.
    return Workshop(Path(os.environ.get("WORKSHOP", request.config.stash[SHARED])))


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


@pytest.fixture(scope="session")
def released(workshop: Workshop) -> Path:
    """The template with a commit and a tag for each release."""
    return workshop.once("released", history)


@pytest.fixture
def copied(released: Path, workshop: Workshop, tmp_path: Path) -> Copied:
    """A copy of a release, made once and given out as often as it is asked for."""

    def copied(version: Version, variant: Variant) -> Path:
        def make(folder: Path) -> None:
            copier.run_copy(
                str(released),
                folder,
                data=checked(variant.answers),
                vcs_ref=f"v{version}",
                defaults=True,
                quiet=True,
            )

        made = workshop.once(f"copy-{version}-{variant.name}", make)
        project = tmp_path / f"{version}-{variant.name}"
        shutil.copytree(made, project)
        return project

    return copied
