"""The workflow that opens a pull request: its own steps, with GitHub replaced by a fake `gh`."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

from tests.conftest import Render
from tests.processes import environment, run
from tests.releases import PRESENT
from tests.test_updates import replace, tree
from tests.workshop import commit, files

NEXT = "99.0.0"
GH = """\
#!/bin/sh
printf '%s\\n' "gh $*" >> "$GH_LOG"
if test "$1 $2" = "pr list"; then printf '%s' "$GH_OPEN"; fi
"""


@dataclass(frozen=True)
class Actions:
    """A project, its origin, and what the workflow's steps do to them."""

    project: Path
    origin: Path
    log: Path

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the steps as GitHub does: each by `bash -e`, until one fails."""
        path = f"{self.log.parent / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        known = {
            "PATH": path,
            "GH_LOG": str(self.log),
            "GH_OPEN": "",
            "RUNNER_TEMP": str(self.log.parent),
        }
        for step in steps(self.project):
            if "run" in step:
                ended = subprocess.run(
                    ["bash", "-e", "-c", step["run"]],
                    cwd=self.project,
                    env=environment(**{**known, **step.get("env", {}), **env}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                if ended.returncode:
                    break
        return ended

    @property
    def asked(self) -> list[str]:
        """What GitHub was asked."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def branches(self) -> list[str]:
        told = run("git", "branch", "--format=%(refname:short)", cwd=self.origin)
        return sorted(told.split())


def steps(project: Path) -> list[dict[str, Any]]:
    described = yaml.safe_load((project / ".github/workflows/update.yml").read_text())
    found: list[dict[str, Any]] = described["jobs"]["update"]["steps"]
    return found


@pytest.fixture
def actions(released: Path, tmp_path: Path) -> Callable[[bool], Actions]:
    """A project whose template has a release since, or not."""

    def actions(news: bool) -> Actions:
        template = tmp_path / "template"
        run("git", "clone", "--quiet", released, template, cwd=tmp_path)
        project = tmp_path / "service"
        copier.run_copy(str(template), project, vcs_ref=f"v{PRESENT}", defaults=True, quiet=True)
        commit(project)
        run("git", "branch", "--move", "main", cwd=project)
        run("git", "clone", "--quiet", "--bare", project, "origin", cwd=tmp_path)
        run("git", "remote", "add", "origin", tmp_path / "origin", cwd=project)
        if news:
            replace(
                template, "CHANGELOG.md", "# Changelog\n", f"# Changelog\n\n## {NEXT}\n\nNew.\n"
            )
            replace(template, "template/docs/updates.md", "# Updates\n", "# Updates!\n")
            commit(template, f"v{NEXT}")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "gh").write_text(GH)
        (tmp_path / "bin" / "gh").chmod(0o755)
        return Actions(project, tmp_path / "origin", tmp_path / "gh.log")

    return actions


def test_a_newer_template_becomes_a_pull_request(actions: Callable[[bool], Actions]) -> None:
    here = actions(True)
    ended = here.run()
    assert ended.returncode == 0, ended.stdout
    branch = f"template-v{NEXT}"
    assert here.branches == ["main", branch]
    changed = run("git", "diff", "--name-only", "main", branch, cwd=here.origin).split()
    assert changed == [".copier-answers.yml", "docs/updates.md"]
    author = run("git", "log", "-1", "--format=%an <%ae>", branch, cwd=here.origin)
    assert author == "github-actions[bot] <41898282+github-actions[bot]@users.noreply.github.com>\n"
    assert here.asked == [
        f"gh pr list --head {branch} --state all --json number --jq .[]",
        "gh auth setup-git",
        f"gh pr create --head {branch} --title Template v{NEXT} --body-file"
        f" {here.log.parent}/report.md",
    ]
    report = (here.log.parent / "report.md").read_text()
    assert report.startswith(f"Updated from v{PRESENT} to v{NEXT}.\n\n## {NEXT}\n\nNew.\n")


def test_a_conflict_becomes_a_draft(actions: Callable[[bool], Actions]) -> None:
    here = actions(True)
    replace(here.project, "docs/updates.md", "# Updates\n", "# Our updates\n")
    commit(here.project)
    ended = here.run()
    assert ended.returncode == 0, ended.stdout
    assert here.asked[-1].endswith("report.md --draft")
    assert "* `docs/updates.md`\n" in (here.log.parent / "report.md").read_text()


def test_what_was_proposed_is_not_proposed_again(actions: Callable[[bool], Actions]) -> None:
    here = actions(True)
    assert here.run(GH_OPEN='{"number":7}').returncode == 0
    assert [line.split()[1:3] for line in here.asked] == [["pr", "list"]]
    assert here.branches == ["main"]


def test_nothing_is_asked_of_github_without_news(actions: Callable[[bool], Actions]) -> None:
    here = actions(False)
    ended = here.run()
    assert ended.returncode == 0, ended.stdout
    assert (here.asked, here.branches) == ([], ["main"])


def test_a_push_that_is_refused_says_what_is_missing(actions: Callable[[bool], Actions]) -> None:
    here = actions(True)
    refusal = here.origin / "hooks" / "pre-receive"
    refusal.write_text("#!/bin/sh\nexit 1\n")
    refusal.chmod(0o755)
    ended = here.run()
    assert ended.returncode == 1
    assert "::error::The branch was not taken." in ended.stdout
    assert "TEMPLATE_UPDATE_TOKEN" in ended.stdout
    assert not [line for line in here.asked if "pr create" in line]


def test_it_is_left_out_on_demand(render: Render) -> None:
    on, off = render({}), render({"updates": "none"})
    assert files(on) - files(off) == {".github/workflows/update.yml"}
    same = tree(off).keys() - {".copier-answers.yml"}
    assert {name: tree(on)[name] for name in same} == {name: tree(off)[name] for name in same}
