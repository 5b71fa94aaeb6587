"""Copier itself: no trust is needed, the oldest version will do, and a switch can be flipped."""

import filecmp
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.conftest import Render
from tests.processes import run
from tests.variants import FULLEST, ROOT, SWITCHES
from tests.workshop import VERSION, checked, commit, files, uv

OPTIONS: dict[str, Any] = {
    "defaults": True,
    "vcs_ref": VERSION,
    "unsafe": False,
    "quiet": True,
}


def same(one: Path, other: Path) -> bool:
    """Whether two projects hold the same files; the answers may tell of other folders."""
    names = files(one)
    equal, *_ = filecmp.cmpfiles(one, other, names, shallow=False)
    return files(other) == names == {*equal, ".copier-answers.yml"}


def test_the_command_line_needs_no_trust(template: Path, render: Render, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("copier")
    run(program, "copy", "--defaults", "--vcs-ref", VERSION, template, "service", cwd=tmp_path)
    assert same(tmp_path / "service", render({}))


def test_the_oldest_copier_renders_the_same(template: Path, render: Render, tmp_path: Path) -> None:
    oldest = yaml.safe_load((ROOT / "copier.yml").read_text())["_min_copier_version"]
    uv("venv", "oldest", cwd=tmp_path)
    uv("pip", "install", "--python", "oldest", f"copier=={oldest}", cwd=tmp_path)
    program = tmp_path / "oldest" / "bin" / "copier"
    assert oldest in run(program, "--version", cwd=tmp_path)
    answers = [f"--data={switch}=true" for switch in SWITCHES]
    copy = ("copy", "--defaults", "--vcs-ref", VERSION, *answers)
    run(program, *copy, template, "service", cwd=tmp_path)
    assert same(tmp_path / "service", render(FULLEST.answers))


def copied(template: Path, project: Path, answers: Mapping[str, Any]) -> Path:
    """A copy without trust, committed, as its owner would have it."""
    copier.run_copy(str(template), project, data=checked(answers), **OPTIONS)
    commit(project)
    return project


def update(project: Path, answers: Mapping[str, Any]) -> None:
    copier.run_update(project, data=checked(answers), overwrite=True, **OPTIONS)


@pytest.mark.parametrize("switch", ["streaming", "kubernetes"])
def test_an_update_that_flips_a_switch_equals_a_fresh_copy(
    switch: str, template: Path, render: Render, tmp_path: Path
) -> None:
    off = FULLEST.without(switch)
    for before, after in ((FULLEST, off), (off, FULLEST)):
        project = copied(template, tmp_path / before.name, before.answers)
        update(project, after.answers)
        assert same(project, render(after.answers))


def test_an_update_leaves_the_owners_models_alone(template: Path, tmp_path: Path) -> None:
    project = copied(template, tmp_path / "service", {"verifier": "openai/gpt-4.1"})
    models = project / "cascade.toml"
    mine = f"# mine\n{models.read_text()}"
    models.write_text(mine)
    commit(project)
    update(project, {"verifier": "openai/gpt-5"})
    assert models.read_text() == mine


def test_an_answer_to_no_question_is_an_error(render: Render) -> None:
    with pytest.raises(KeyError, match="does not ask: dokcer"):
        render({"dokcer": False})
