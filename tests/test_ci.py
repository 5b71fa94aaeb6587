"""The workflows: the matrix is the set of variants, actions are pinned, tokens may only read."""

import json
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import run
from tests.test_answers import ANSWERS, ROWS
from tests.variants import ROOT, SWITCHES, VARIANTS

OURS = ROOT / ".github" / "workflows" / "ci.yml"
THEIRS = ROOT / "template" / ".github" / "workflows" / "ci.yml"
PINNED = re.compile(r"uses: ([\w/-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", re.MULTILINE)
UPDATES = THEIRS.with_name("update.yml")
WORKFLOWS = {"ours": OURS, "theirs": THEIRS, "updates": UPDATES}
BOTH = pytest.mark.parametrize("workflow", [OURS, THEIRS], ids=["ours", "theirs"])
EACH = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)


def jobs(workflow: Path) -> dict[str, Any]:
    described = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    found: dict[str, Any] = described["jobs"]
    return found


def test_there_are_as_many_variants_as_the_switches_allow() -> None:
    assert len(SWITCHES) == 6
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS) == 2 ** len(SWITCHES)


def test_the_matrix_is_the_set_of_variants() -> None:
    printed = run(sys.executable, "-m", "tests.variants", "--github", cwd=ROOT)
    assert json.loads(printed) == {"variant": [variant.name for variant in VARIANTS]}
    described = jobs(OURS)
    (step,) = [step for step in described["matrix"]["steps"] if step.get("id") == "variants"]
    assert "-m tests.variants --github" in step["run"]
    matrix = described["variant"]["strategy"]["matrix"]
    assert matrix == "${{ fromJSON(needs.matrix.outputs.matrix) }}"
    (tested,) = [step for step in described["variant"]["steps"] if "env" in step]
    assert tested == {"run": "make test-variant", "env": {"NAME": "${{ matrix.variant }}"}}


def test_nothing_passes_unless_every_job_does() -> None:
    described = jobs(OURS)
    assert set(described["passed"]["needs"]) == described.keys() - {"passed"}
    assert "--ignore tests/test_variants.py" in (ROOT / "Makefile").read_text(encoding="utf-8")


@EACH
def test_a_workflow_is_valid(workflow: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    run(sys.executable, "-m", "check_jsonschema", *schema, workflow, cwd=ROOT)
    auditor = Path(sys.executable).with_name("zizmor")
    run(auditor, "--offline", "--no-progress", "--quiet", workflow, cwd=ROOT)


@EACH
def test_actions_are_pinned_and_the_token_may_do_little(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    assert len(PINNED.findall(text)) == text.count("uses:")
    assert yaml.safe_load(text)["permissions"] == {}
    allowed = {"contents": "read"}
    if workflow == UPDATES:
        allowed = {"contents": "write", "pull-requests": "write"}
    for job in jobs(workflow).values():
        assert job.get("permissions", allowed) == allowed
        assert job["timeout-minutes"]


def test_all_workflows_pin_the_same_versions() -> None:
    pins = {pin for file in WORKFLOWS.values() for pin in PINNED.findall(file.read_text())}
    assert len({action for action, *_ in pins}) == len(pins)


@BOTH
def test_every_change_is_checked_once(workflow: Path) -> None:
    described = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert described["name"] == "CI"
    # YAML takes `on` for a yes.
    assert described[True] == {"push": {"branches": ["main"]}, "pull_request": None}
    assert described["concurrency"] == {
        "group": "ci-${{ github.ref }}",
        "cancel-in-progress": True,
    }


@BOTH
def test_a_job_reads_the_repository_and_keeps_no_credentials(workflow: Path) -> None:
    for job in jobs(workflow).values():
        assert job["name"]
        assert job["runs-on"] == "ubuntu-24.04"
        first, *rest = job["steps"]
        assert not [step for step in rest if "checkout" in step.get("uses", "")]
        if "checkout" in first.get("uses", ""):
            assert first["with"] == {"persist-credentials": False}
            assert job["permissions"] == {"contents": "read"}


def test_a_job_of_ours_begins_with_a_checkout_and_runs_make() -> None:
    described = jobs(OURS)
    assert described["variant"]["needs"] == "matrix"
    assert described["variant"]["strategy"]["fail-fast"] is False
    assert described["matrix"]["outputs"] == {"matrix": "${{ steps.variants.outputs.matrix }}"}
    ran = {
        name: [step.get("run", "checkout") for step in job["steps"]]
        for name, job in described.items()
    }
    assert ran["matrix"][:2] == ["checkout", "make .venv/installed"]
    assert ran["matrix"][2].endswith('>> "$GITHUB_OUTPUT"')
    assert ran["variant"] == ["checkout", "make test-variant"]
    assert (ran["rest"][0], ran["rest"][-1]) == ("checkout", "make test-rest")
    assert "prometheus" in ran["rest"][1]
    assert ran["updates"] == ["checkout", "make test-updates"]
    passed = described["passed"]
    assert passed["if"] == "always()"
    assert passed["steps"] == [
        {
            "run": 'test "$RESULTS" = "success success success success"',
            "env": {"RESULTS": "${{ join(needs.*.result, ' ') }}"},
        }
    ]


def test_a_service_is_checked_on_the_oldest_python_and_on_that_of_its_image() -> None:
    job = jobs(THEIRS)["check"]
    dockerfile = (ROOT / "template" / "Dockerfile").read_text(encoding="utf-8")
    (image,) = re.findall(r"PYTHON_IMAGE=python:(3\.\d+)\.", dockerfile)
    assert job["strategy"] == {"fail-fast": False, "matrix": {"python": ["3.11", image]}}
    assert job["env"] == {"UV_PYTHON": "${{ matrix.python }}"}
    assert job["name"] == "Python ${{ matrix.python }}"
    assert ["uses" in step for step in job["steps"][:3]] == [True, True, False]
    assert "setup-uv" in job["steps"][1]["uses"]


def test_news_of_the_template_are_looked_for_each_week_and_on_demand() -> None:
    described = yaml.safe_load(UPDATES.read_text(encoding="utf-8"))
    assert described["name"] == "Template"
    assert described[True] == {"schedule": [{"cron": "17 5 * * 1"}], "workflow_dispatch": None}
    assert described["concurrency"] == {"group": "template"}
    job = described["jobs"]["update"]
    assert job["name"] == "Update"
    assert job["runs-on"] == "ubuntu-24.04"
    assert job["permissions"] == {"contents": "write", "pull-requests": "write"}
    checkout, uv, update, propose = job["steps"]
    # The job's token is for `gh` alone, and no cache is handed on to what can write.
    assert checkout["with"] == {"persist-credentials": False}
    assert uv["with"] == {"enable-cache": False}
    assert update == {
        "name": "Update the project",
        "run": 'make update ARGS="--report $RUNNER_TEMP/report.md"',
    }
    assert propose["name"] == "Open a pull request"
    assert propose["env"] == {"GH_TOKEN": "${{ secrets.TEMPLATE_UPDATE_TOKEN || github.token }}"}


def test_every_pair_of_answers_is_covered() -> None:
    met = {
        (a, json.dumps(row[a]), b, json.dumps(row[b]))
        for row in ROWS
        for a, b in combinations(ANSWERS, 2)
    }
    wanted = sum(len(ANSWERS[a]) * len(ANSWERS[b]) for a, b in combinations(ANSWERS, 2))
    assert len(met) == wanted
