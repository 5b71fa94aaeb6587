"""`hooks/update.py`: what it does around an update, and what it refuses with the tree as it was."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import Copied
from tests.processes import environment, run
from tests.releases import EARLIER, PRESENT
from tests.test_updates import append, clash, replace, tree
from tests.variants import FULLEST, LEANEST, ROOT
from tests.workshop import commit, uv

HOOK = ROOT / "hooks" / "update.py"
ANSWERS = ".copier-answers.yml"
PROGRAMS = Path(sys.executable).parent


def hook(project: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run the script on a project, from another folder."""
    ended = subprocess.run(
        [sys.executable, HOOK, project, *arguments],
        cwd=project.parent,
        env=environment(PATH=f"{PROGRAMS}:{os.environ['PATH']}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_it_updates_keeps_locks_and_tells(copied: Copied, tmp_path: Path) -> None:
    project, new = copied(EARLIER[-1], FULLEST), tree(copied(PRESENT, FULLEST))
    uv("lock", cwd=project)
    mine = "src/app/features/rate_limit.py"
    append(project, mine, "OURS = 1")
    append(project, "docs/ledger.md", "Ours.")
    edited = (project / mine).read_bytes()
    clashing = clash(project, new)
    commit(project)
    code, told = hook(project, "--report", tmp_path / "report.md")
    assert code == 0, told
    assert told == (tmp_path / "report.md").read_text(encoding="utf-8")
    assert told.startswith(f"Updated from v{EARLIER[-1]} to v{PRESENT}.\n")
    assert re.findall(r"^\* `(.*)`$", told, re.MULTILINE) == [clashing, mine]
    # The rest of the file is the template's and the owner's, merged.
    assert (project / f"{mine}.kept").read_bytes() == edited
    assert (project / "docs/ledger.md").read_text().endswith("\nOurs.\n")
    assert "`uv.lock`: is renewed.\n" in told
    # What is new since then, and no more than that.
    assert re.findall(r"^## (.*)$", told, re.MULTILINE) == [str(PRESENT)]
    assert "What you must do" in told


def test_a_lock_waits_for_the_end_of_a_conflict(copied: Copied) -> None:
    project = copied(EARLIER[0], LEANEST)
    uv("lock", cwd=project)
    # 0.2.0 has a line beside this one.
    replace(project, "pyproject.toml", '"pyyaml>=6.0.2"', '"pyyaml>=6.0.3"')
    commit(project)
    locked = (project / "uv.lock").read_bytes()
    code, told = hook(project)
    assert code == 0, told
    assert "`uv.lock`: renew it with `uv lock`, which could not be run yet.\n" in told
    assert (project / "uv.lock").read_bytes() == locked


def test_it_changes_answers_of_every_kind(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    commit(project)
    wanted = {
        "streaming": True,
        "providers": ["openai", "groq"],
        "description": f"# 猫: {'x ' * 70}!",
    }
    data = [
        f"--data={name}={json.dumps(value)}"
        for name, value in wanted.items()
        if name != "description"
    ]
    code, told = hook(project, *data, f"--data=description={wanted['description']}")
    assert (code, told.splitlines()[0]) == (0, f"Still of v{PRESENT}.")
    assert (project / "docs/streaming.md").is_file()
    kept = yaml.safe_load((project / ANSWERS).read_text(encoding="utf-8"))
    assert wanted.items() <= kept.items()
    # The digest that the answers carry is the one that the script expects.
    commit(project)
    assert hook(project)[0] == 0


def test_it_goes_to_a_release_that_is_not_the_newest(copied: Copied) -> None:
    project = copied(EARLIER[0], LEANEST)
    commit(project)
    code, told = hook(project, "--to", str(EARLIER[1]))
    assert code == 0, told
    assert told.startswith(f"Updated from v{EARLIER[0]} to v{EARLIER[1]}.\n")
    commit(project)
    for version, reason in (("7", "has no 7; its newest"), (str(EARLIER[0]), "Downgrades are not")):
        code, told = hook(project, "--to", version)
        assert code == 1
        assert reason in told
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_nothing_new_changes_nothing(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    commit(project)
    newest = f"This project is of v{PRESENT}, the newest release of its template.\n"
    assert hook(project) == (0, newest)
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_make_update_runs_the_newest_script(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    commit(project)
    path = f"{PROGRAMS}:{os.environ['PATH']}"
    told = run("make", "update", "ARGS=--data prometheus=true", cwd=project, env={"PATH": path})
    assert told.startswith(f"Still of v{PRESENT}.\n")
    assert (project / "docs/prometheus.md").is_file()


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("gh:us/template", "https://github.com/us/template"),
        ("gl:us/template", "https://gitlab.com/us/template"),
        ("git+https://example.com/template", "https://example.com/template"),
    ],
)
def test_make_update_finds_what_copier_finds(source: str, url: str, copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    here = re.search("^_src_path: (.*)$", (project / ANSWERS).read_text(), re.MULTILINE)
    assert here
    answers("^_src_path: .*", f"_src_path: {source}")(project)
    instead = {"KEY_0": f"url.{here[1]}.insteadOf", "VALUE_0": url, "COUNT": "1"}
    env = {f"GIT_CONFIG_{name}": value for name, value in instead.items()}
    env["PATH"] = f"{PROGRAMS}:{os.environ['PATH']}"
    told = run("make", "update", "ARGS=--help", cwd=project, env=env)
    assert "--trust" in told


# ----------------------------------------------------------------------------------- bad input

Spoil = Callable[[Path], None]


def answers(old: str, new: str) -> Spoil:
    """Edit the answers by hand, and commit that."""

    def spoil(project: Path) -> None:
        text = (project / ANSWERS).read_text(encoding="utf-8")
        (project / ANSWERS).write_text(re.sub(old, new, text, flags=re.M), encoding="utf-8")
        commit(project)

    return spoil


def without_git(project: Path) -> None:
    (project / ".git").rename(project.parent / "git")


def ignored(project: Path) -> None:
    """As `build/` of a repository is."""
    without_git(project)
    run("git", "init", "--quiet", cwd=project.parent)
    (project.parent / ".gitignore").write_text("*\n")


def hidden(project: Path) -> None:
    """A file that the owner has git not show."""
    run("git", "config", "status.showUntrackedFiles", "no", cwd=project)
    (project / "x").touch()


def in_another_encoding(project: Path) -> None:
    (project / ANSWERS).write_bytes("author: Müller\n".encode("latin-1"))
    commit(project)


def without_answers(project: Path) -> None:
    (project / ANSWERS).unlink()
    commit(project)


def fork(tags: bool) -> Spoil:
    """Let the project follow a fork: with all tags but the newest, or with none."""

    def spoil(project: Path) -> None:
        source = yaml.safe_load((project / ANSWERS).read_text())["_src_path"]
        run("git", "clone", "--quiet", "--no-tags", source, "fork", cwd=project.parent)
        where = project.parent / "fork"
        if tags:
            run(
                "git",
                "fetch",
                "--quiet",
                "origin",
                f"refs/tags/v{EARLIER[0]}:refs/tags/v{EARLIER[0]}",
                cwd=where,
            )
        answers("^_src_path: .*", f"_src_path: {where}")(project)

    return spoil


SPOILT: dict[str, tuple[Spoil, str]] = {
    "dirty": (lambda project: append(project, "README.md", "x"), "changes that are not committed"),
    "untracked": (lambda project: (project / "x").touch(), "changes that are not committed"),
    "hidden": (hidden, "changes that are not committed"),
    "no git": (without_git, "No git repository has"),
    "ignored": (ignored, "No git repository has"),
    "no answers": (without_answers, f"{ANSWERS} is missing"),
    "no yaml": (answers("^author:", "author: : ["), "was edited and tells the template"),
    "no commit": (answers("^_commit: .*\n", ""), "was edited and tells the template"),
    "no utf-8": (in_another_encoding, "was edited and tells the template"),
    "a list": (answers(r"\A(.|\n)*\Z", "- x\n"), "was edited and tells the template"),
    "flipped by hand": (answers("^streaming: true", "streaming: false"), "was edited by hand"),
    "other commit": (answers("^_commit: .*", f"_commit: v{EARLIER[0]}"), "was edited by hand"),
    "template gone": (answers("^_src_path: .*", "_src_path: /no/such"), "cannot be read from"),
    "fork without tags": (fork(tags=False), "If it is a fork, push the tags of the original"),
    "older template": (fork(tags=True), "is older than this project"),
}


@pytest.mark.parametrize(("spoil", "told"), SPOILT.values(), ids=SPOILT)
def test_it_refuses_with_a_sentence_and_leaves_the_tree_as_it_was(
    spoil: Spoil, told: str, copied: Copied
) -> None:
    project = copied(PRESENT, FULLEST)
    commit(project)
    spoil(project)
    before = tree(project)
    code, said = hook(project)
    assert code == 1
    assert told in said
    assert "Traceback" not in said
    assert tree(project) == before


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (
            "dokcer=false",
            "dokcer=false answers no question. Write NAME=VALUE, with one of project_n",
        ),
        ("streaming", "streaming answers no question"),
        ("streaming=maybe", "streaming is true or false, not maybe."),
        ("project_slug=A B", "Copier refused, and the project is as it was. It said: "),
    ],
)
def test_a_bad_answer_is_refused(argument: str, told: str, copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    commit(project)
    before = tree(project)
    code, said = hook(project, "--data", argument)
    assert code == 1
    assert said.startswith(told), said
    assert tree(project) == before
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_answers_that_no_project_was_made_of_are_refused(copied: Copied) -> None:
    """Of before 0.3.0, when answers carried no digest."""
    project = copied(EARLIER[-1], LEANEST)
    answers("^project_slug: .*", "project_slug: A B")(project)
    before = tree(project)
    code, said = hook(project)
    assert code == 1
    assert f"no project of v{EARLIER[-1]} can be made" in said
    assert "A slug has 2 to 40 lower-case letters" in said
    assert "Traceback" not in said
    assert tree(project) == before


@pytest.fixture
def followed(copied: Copied) -> tuple[Path, Path]:
    """A project of the last release, and the template that it follows, to be changed."""
    project = copied(EARLIER[-1], LEANEST)
    template = project.parent / "template"
    source = yaml.safe_load((project / ANSWERS).read_text())["_src_path"]
    run("git", "clone", "--quiet", source, template, cwd=project.parent)
    answers("^_src_path: .*", f"_src_path: {template}")(project)
    return project, template


def test_an_update_that_fails_half_way_is_undone(followed: tuple[Path, Path]) -> None:
    project, template = followed
    before = tree(project)
    # Copier renders the other files into the project before it comes to this one.
    (template / "template" / "zzz.md").write_text("<%= 1 / 0 %>")
    commit(template, "v99.0.0")
    code, said = hook(project)
    assert code == 1
    assert said == "Copier refused, and the project is as it was. It said: division by zero\n"
    assert tree(project) == before
    assert run("git", "status", "--porcelain", cwd=project) == ""


def test_a_migration_asks_for_trust_and_runs_with_it(followed: tuple[Path, Path]) -> None:
    project, template = followed
    append(
        template, "copier.yml", "_migrations:\n  - version: v99.0.0\n    command: touch migrated"
    )
    commit(template, "v99.0.0")
    code, said = hook(project)
    assert code == 1
    assert "--trust" in said
    assert run("git", "status", "--porcelain", cwd=project) == ""
    assert hook(project, "--trust")[0] == 0
    assert (project / "migrated").exists()


@pytest.mark.parametrize("name", ["no answers", "template gone"])
def test_make_update_ends_with_a_sentence_too(name: str, copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    commit(project)
    SPOILT[name][0](project)
    before = tree(project)
    ended = subprocess.run(
        ["make", "update"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stdout == "The template cannot be read: docs/updates.md says what to do.\n"
    assert tree(project) == before


def test_edited_answers_are_believed_without_their_digest(copied: Copied) -> None:
    project = copied(PRESENT, LEANEST)
    answers("^author:", "author: Somebody else #")(project)
    assert hook(project)[0] == 1
    answers("^# sha256.*\n", "")(project)
    assert hook(project)[0] == 0


def test_a_project_may_move_and_be_renamed(copied: Copied) -> None:
    project = copied(EARLIER[-1], LEANEST)
    commit(project)
    moved = project.rename(project.parent / "other name")
    code, told = hook(moved, "--data", "project_name=Other", "--data", "project_slug=other")
    assert code == 0, told
    assert 'name = "other"' in (moved / "pyproject.toml").read_text()
    assert (moved / "README.md").read_text().startswith("# Other\n")


def test_a_project_may_be_a_folder_of_a_repository(copied: Copied) -> None:
    project = copied(EARLIER[-1], FULLEST)
    everything = project.parent / "everything"
    everything.mkdir()
    service = project.rename(everything / "service")
    append(service, "docs/streaming.md", "Ours.")
    commit(everything)
    code, told = hook(service, "--data", "streaming=false")
    assert code == 0, told
    assert (service / "docs/streaming.md.kept").read_text().endswith("\nOurs.\n")
    assert re.findall(r"^\* `(.*)`$", told, re.MULTILINE) == ["docs/streaming.md"]
