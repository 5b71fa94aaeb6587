"""Copier itself: no trust is needed, the oldest version will do, and a switch can be flipped."""

import filecmp
import sys
from pathlib import Path

import copier
import pytest
import yaml

from tests.conftest import Render
from tests.processes import run
from tests.variants import FULLEST, ROOT, SWITCHES
from tests.workshop import VERSION, checked, commit, files, uv


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


@pytest.mark.parametrize("switch", ["streaming", "kubernetes"])
def test_an_update_that_flips_a_switch_equals_a_fresh_copy(
    switch: str, template: Path, render: Render, tmp_path: Path
) -> None:
    before, after = FULLEST, FULLEST.without(switch)
    for old, new in ((before, after), (after, before)):
        project = tmp_path / ("off" if new == after else "on")
        copier.run_copy(
            str(template),
            project,
            data=checked(old.answers),
            defaults=True,
            vcs_ref=VERSION,
            unsafe=False,
            quiet=True,
        )
        commit(project)
        copier.run_update(
            project,
            data=checked(new.answers),
            defaults=True,
            overwrite=True,
            vcs_ref=VERSION,
            unsafe=False,
            quiet=True,
        )
        assert same(project, render(new.answers))


def test_an_answer_to_no_question_is_an_error(render: Render) -> None:
    with pytest.raises(KeyError, match="does not ask: dokcer"):
        render({"dokcer": False})
