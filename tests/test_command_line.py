"""Copier's command line as CI uses it: answers by option and by file, and no one to ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Render
from tests.processes import environment
from tests.test_copier import same
from tests.variants import QUESTIONS, ROOT, SWITCHES
from tests.workshop import VERSION, commit, files, rendered

COPIER = Path(sys.executable).with_name("copier")


def told(*arguments: str | Path, cwd: Path) -> tuple[int, str]:
    """The exit code of Copier without a terminal, and what it prints."""
    ended = subprocess.run(
        [COPIER, *arguments],
        cwd=cwd,
        env=environment(COPIER_SETTINGS_PATH=os.environ["COPIER_SETTINGS_PATH"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def copy(template: Path, cwd: Path, *options: str | Path) -> tuple[int, str]:
    return told("copy", "--vcs-ref", VERSION, *options, template, "service", cwd=cwd)


def committed(template: Path, cwd: Path) -> Path:
    """A copy with the defaults, as its owner would have it."""
    code, said = copy(template, cwd, "--defaults")
    assert code == 0, said
    commit(cwd / "service")
    return cwd / "service"


def test_a_file_of_answers_and_options_beside_it(
    template: Path, render: Render, tmp_path: Path
) -> None:
    answers = {"project_name": "Ärger: #1", "providers": ["groq", "ollama"], "docker": False}
    file = tmp_path / "answers.yml"
    file.write_text(yaml.safe_dump(answers), encoding="utf-8")
    code, said = copy(template, tmp_path, "--defaults", "--data-file", file, "-d", "kubernetes=yes")
    assert code == 0, said
    assert same(tmp_path / "service", render({**answers, "kubernetes": True}))
    # What to do next is said last, and nothing was asked.
    assert said.rstrip().endswith("README.md says how.")
    assert "Ärger: #1 is ready." in said
    assert not [question for question in QUESTIONS.values() if question["help"] in said]


@pytest.mark.parametrize(
    "word", ["true", "Yes", "y", "T", "on", "1", "False", "no", "n", "f", "off", "0"]
)
def test_a_switch_takes_the_words_for_yes_and_no(word: str, plain: Path, tmp_path: Path) -> None:
    project = rendered(plain, tmp_path / "service", {"docker": word}, "*", "!.copier-answers.yml")
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text(encoding="utf-8"))
    assert answers["docker"] is (word.lower() in {"true", "yes", "y", "t", "on", "1"})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("docker=maybe", "The answer to 'docker' is yes or no."),
        ("openai_api=", "The answer to 'openai_api' is yes or no."),
        ("dokcer=false", "There is no question 'dokcer'. The questions are project_name, "),
        ("slug_of_name=../evil", "There is no question 'slug_of_name'."),
        ("=x", "There is no question ''."),
    ],
)
def test_what_no_question_takes_is_refused(
    given: str, sentence: str, template: Path, tmp_path: Path
) -> None:
    code, said = copy(template, tmp_path, "--defaults", "-d", given)
    assert code != 0
    assert sentence in said.splitlines()[-1]
    assert not (tmp_path / "service").exists()


def test_what_is_computed_cannot_be_given_beside_all_answers(
    plain: Path, render: Render, tmp_path: Path
) -> None:
    answers = yaml.safe_load((render({}) / ".copier-answers.yml").read_text(encoding="utf-8"))
    described = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    computed = [n for n, q in described.items() if n[0] != "_" and q.get("when") is False]
    assert computed
    for name in computed:
        with pytest.raises(ValueError, match=rf"'{name}': It is computed from the other answers"):
            rendered(plain, tmp_path / "service", {**answers, name: "x"})


def test_the_template_knows_its_own_questions() -> None:
    described = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
    assert yaml.safe_load(described["asked"]["default"]) == list(QUESTIONS)
    assert yaml.safe_load(described["switches"]["default"]) == list(SWITCHES)


def test_without_a_terminal_and_without_defaults_nothing_is_written(
    template: Path, tmp_path: Path
) -> None:
    code, said = copy(template, tmp_path)
    assert code != 0
    assert "Use `--defaults` and/or `--data`/`--data-file`" in said.splitlines()[-1]
    assert not (tmp_path / "service").exists()


def test_an_update_refuses_a_slip_of_the_pen_and_leaves_the_project_as_it_was(
    template: Path, tmp_path: Path
) -> None:
    project = committed(template, tmp_path)
    before = {name: (project / name).read_bytes() for name in files(project)}
    for given in ("dokcer=false", "docker=maybe"):
        code, said = told("update", "--defaults", "-d", given, cwd=project)
        assert code != 0
        assert given.split("=")[0] in said.splitlines()[-1]
        assert {name: (project / name).read_bytes() for name in files(project)} == before


def test_an_answer_to_a_question_of_an_older_release_is_no_hindrance(
    template: Path, render: Render, tmp_path: Path
) -> None:
    project = committed(template, tmp_path)
    answers = project / ".copier-answers.yml"
    answers.write_text(f"{answers.read_text()}asked_once: true\n", encoding="utf-8")
    commit(project)
    code, said = told("update", "--defaults", "-d", "docker=no", cwd=project)
    assert code == 0, said
    assert "My Cascade is updated. `git diff` shows how;" in said
    assert same(project, render({"docker": False}))
