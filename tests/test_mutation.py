"""The mutants themselves: none is forgotten, each is told killed or survived as it is."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Render
from tests.mutation.__main__ import Laboratory, Stage, explained, reason, stages_of
from tests.mutation.deployment import changes
from tests.mutation.mutants import WAYS, mutants
from tests.test_in_place import CONDITIONS, template_files
from tests.variants import FULLEST, ROOT, SWITCHES, manifest
from tests.workshop import Workshop

ALL = {mutant.name: mutant for mutant in mutants(ROOT)}
PLAIN = (
    "*.py",
    "*.md",
    "*.jsonl",
    "py.typed",
    "LICENSE",
    ".copier-answers.yml",
    "tests/*.toml",
    "*.json",
    "streaming/page/*",
    "alerts_test.yaml",
)
"""What has nothing to take away one by one: code, prose, panels, tests, and one expression."""
MANIFEST = ("questions", "tests/test_snapshots.py")
DEPLOYMENT = "template/deploy/kubernetes/base/deployment.yaml: spec.template.spec"


def test_every_mutant_differs_from_its_file_and_has_tests() -> None:
    assert len(ALL) > 900
    for mutant in ALL.values():
        assert mutant.text != (ROOT / mutant.file).read_text(encoding="utf-8"), mutant.name
        assert stages_of(mutant)


def test_every_file_that_could_have_mutants_has_some(template: Path) -> None:
    changed = {mutant.file for mutant in ALL.values()}
    for pattern in WAYS:
        assert [path for path in ROOT.glob(pattern) if path.is_file()], pattern
    names = {f"template/{name}" for name in template_files(template)}
    left = {name for name in names - changed if not any(map(Path(name).match, PLAIN))}
    assert left == set()


def test_nothing_is_forgotten() -> None:
    names = list(ALL)
    for switch in SWITCHES:
        for path in manifest(switch):
            here = [name for name in names if re.match(rf"copier.yml: .* / /{path}($| )", name)]
            assert here, path
            # What it changes is which files there are: the tests of that come first.
            assert {stages_of(ALL[name])[0] for name in here} == {MANIFEST}
        for way in ("always", "never"):
            assert f"copier.yml: if not {switch}, {way}" in ALL
    for file, count in CONDITIONS.items():
        found = [name for name in names if name.startswith(f"template/{file}: if ")]
        # Beside blocks there are conditions inside expressions.
        assert len(found) <= 2 * count
    for key in ("startupProbe", "readinessProbe", "livenessProbe", "resources.limits.memory"):
        assert f"{DEPLOYMENT}.containers[api].{key}" in ALL
    assert "template/.env.example: DAILY_BUDGET=10.0" in ALL
    assert "template/src/app/features/prometheus/__init__.py: Feature(observers=…)" in ALL
    assert "template/src/app/settings.py: DAILY_BUDGET" in ALL


def test_every_explanation_is_of_a_mutant_that_exists() -> None:
    for pattern in explained():
        assert any(reason(name, {pattern: "x"}) for name in ALL), pattern


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    made = Laboratory(tmp_path_factory.mktemp("laboratory") / "here", Path(sys.executable))
    yield made
    made.close()


MATRIX: Stage = ("template", "tests/test_ci.py", "-k", "matrix")


@pytest.mark.parametrize(
    ("name", "stages", "killed"),
    [
        (".github/workflows/ci.yml: jobs.variant.strategy.matrix", [MATRIX], True),
        (f"{DEPLOYMENT}.containers[api].readinessProbe", [MATRIX], False),
        (
            f"{DEPLOYMENT}.containers[api].readinessProbe",
            [MATRIX, ("template", "tests/test_policy.py")],
            True,
        ),
    ],
)
def test_a_mutant_is_killed_by_the_tests_that_turn_red(
    name: str, stages: list[Stage], killed: bool, laboratory: Laboratory
) -> None:
    told = laboratory.attempt(ALL[name], stages)
    assert bool(told.killed_by) is killed
    if killed:
        assert told.killed_by.startswith(" ".join(stages[-1][:2]))


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        (("tests/no_such_test.py",), "cannot be collected"),
        (("tests/test_ci.py", "-k", "no_such_test"), "red without any mutant"),
    ],
)
def test_red_tests_are_no_proof(tests: tuple[str, ...], told: str, laboratory: Laboratory) -> None:
    with pytest.raises(ValueError, match=told):
        laboratory.attempt(next(iter(ALL.values())), [("template", *tests)])


def test_a_services_own_tests_notice_what_is_wrong_in_its_deployment_files(
    render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    project = render(FULLEST.answers)
    workshop.install(project)
    service = Laboratory(tmp_path / "service", project / ".venv" / "bin" / "python")
    told = [service.attempt(change, [("service", *tests)]) for change, tests in changes(ROOT)]
    service.close()
    assert [result.name for result in told if not result.killed_by] == []
    assert len(told) > 50
    workshop.tell(
        f"deployment files: {len(told)} changes of a path, port, name or variable, each a red test"
    )
