"""Copier itself: no trust is needed, and the oldest version will do."""

import filecmp
import sys
from pathlib import Path

import pytest

from tests.conftest import Render
from tests.processes import run
from tests.variants import FULLEST, SWITCHES
from tests.workshop import VERSION, Workshop, files


def same(one: Path, other: Path) -> bool:
    """Whether two projects hold the same files; the answers may tell of other folders."""
    names = files(one)
    equal, *_ = filecmp.cmpfiles(one, other, names, shallow=False)
    return files(other) == names == {*equal, ".copier-answers.yml"}


def test_the_command_line_needs_no_trust(template: Path, render: Render, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("copier")
    run(program, "copy", "--defaults", "--vcs-ref", VERSION, template, "service", cwd=tmp_path)
    assert same(tmp_path / "service", render({}))


def test_the_oldest_copier_renders_the_same(
    template: Path, render: Render, workshop: Workshop, tmp_path: Path
) -> None:
    answers = [f"--data={switch}=true" for switch in SWITCHES]
    copy = ("copy", "--defaults", "--vcs-ref", VERSION, *answers)
    run(workshop.oldest_copier(), *copy, template, "service", cwd=tmp_path)
    assert same(tmp_path / "service", render(FULLEST.answers))


def test_an_answer_to_no_question_is_an_error(render: Render) -> None:
    with pytest.raises(KeyError, match="does not ask: dokcer"):
        render({"dokcer": False})
