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


def test_every_pair_of_answers_is_covered() -> None:
    met = {
        (a, json.dumps(row[a]), b, json.dumps(row[b]))
        for row in ROWS
        for a, b in combinations(ANSWERS, 2)
    }
    wanted = sum(len(ANSWERS[a]) * len(ANSWERS[b]) for a, b in combinations(ANSWERS, 2))
    assert len(met) == wanted
