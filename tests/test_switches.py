"""A switch that is off leaves nothing: no file but the manifest's, no dependency, no word."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest

from tests.test_variants import extent
from tests.variants import FULLEST, LEANEST, SWITCHES, VARIANTS, belongs, manifest
from tests.workshop import DEPLOYING, Extent, Workshop, files

WORDS = {
    "streaming": [
        *("/api/query/stream", r"features[/.]streaming", "docs/streaming"),
        *("StreamEvent", "playground"),
    ],
    "prometheus": [
        *("prometheus", "/metrics", "servicemonitor", "scrape", "grafana", "runbook"),
        "opentelemetry",
    ],
    "rate_limit": [r"\brate[_ -]limit\b", "slowapi"],
    "docker": ["docker", r"compose\.yaml", "buildkit"],
    "kubernetes": ["kubernetes", "kubectl", "kustom", r"\bpods?\b", "deploy/kubernetes"],
    "openai_api": [r"openai_api\b", r"\[openai api\]", "any openai client"],
}
"""What is only said where a switch is on: patterns, in whatever case."""

DEPENDENCIES = {"prometheus": {"prometheus-client"}, "rate_limit": {"limits", "slowapi"}}
"""What a switch installs; the others install nothing."""

# What the simulated models know of the world is no part of any switch; answers name every switch.
NOT_SEARCHED = {
    "src/app/simulator/knowledge.py",
    "tests/test_simulator.py",
    ".copier-answers.yml",
}


def dependencies(project: Path) -> set[str]:
    described = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return {re.split(r"[^\w-]", line)[0] for line in described["project"]["dependencies"]}


def said(project: Path, patterns: list[str]) -> list[str]:
    """Where a project says one of the words, in file names too."""
    wanted = re.compile("|".join(patterns), re.IGNORECASE)
    found = []
    for name in sorted(files(project) - NOT_SEARCHED):
        lines = [name, *(project / name).read_text(encoding="utf-8").splitlines()]
        found += [
            f"{name}:{number}: {line}" for number, line in enumerate(lines) if wanted.search(line)
        ]
    return found


def test_every_switch_has_its_words() -> None:
    assert WORDS.keys() == set(SWITCHES)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_is_off_leaves_nothing(switch: str, workshop: Workshop) -> None:
    on, off = workshop.fresh(FULLEST), workshop.fresh(FULLEST.without(switch))
    paths = manifest(switch)
    assert files(on) - files(off) == {file for file in files(on) if belongs(file, paths)}
    assert files(off) <= files(on)
    assert dependencies(on) - dependencies(off) == DEPENDENCIES.get(switch, set())
    assert said(off, WORDS[switch]) == []
    # The words are the right ones: where the switch is on, each of them is said.
    for word in WORDS[switch]:
        assert said(on, [word]), word


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_path_of_the_manifest_exists(switch: str, workshop: Workshop) -> None:
    on = files(workshop.fresh(FULLEST))
    for path in manifest(switch):
        assert any(belongs(file, [path]) for file in on), path


def test_the_leanest_variant_says_nothing_of_any_switch(workshop: Workshop) -> None:
    project = workshop.fresh(LEANEST)
    folders = [path for path in project.rglob("*") if path.is_dir()]
    assert [folder for folder in folders if not any(folder.iterdir())] == []
    assert [line for switch in SWITCHES for line in said(project, WORDS[switch])] == []


def test_what_a_switch_can_reach_is_tested_with_every_pair_of_switches() -> None:
    """Both on, both off, and each without the other."""
    serving = set(SWITCHES) - set(DEPLOYING)
    tested = [variant.on & serving for variant in VARIANTS if extent(variant) is not Extent.OWN]
    for one, other in itertools.combinations(serving, 2):
        assert len({(one in on, other in on) for on in tested}) == 4, (one, other)
