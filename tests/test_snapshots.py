"""How snapshots are taken; `test_variants.py` holds all 64 variants against them."""

from pathlib import Path
from typing import Any

import pytest

from tests.snapshots import listed, missing, parted, served
from tests.variants import FULLEST, LEANEST, SWITCHES
from tests.workshop import Workshop, files, rendered

WHOLE: dict[str, Any] = {"paths": {"/a": {"get": {}}, "/b": {}}, "both": 1, "always": [1, 2]}


def test_the_leanest_and_the_fullest_hold_what_is_listed(workshop: Workshop) -> None:
    for variant in (LEANEST, FULLEST):
        assert files(workshop.fresh(variant)) == listed(variant.on)


def test_two_more_answers_leave_a_file_out(plain: Path, tmp_path: Path) -> None:
    answers = {**LEANEST.answers, "license": "none", "updates": "none"}
    project = rendered(plain, tmp_path / "service", answers)
    assert files(project) == listed(LEANEST.on) - {"LICENSE", ".github/workflows/update.yml"}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_changes_what_is_listed(switch: str, workshop: Workshop) -> None:
    without = FULLEST.without(switch)
    assert files(workshop.fresh(without)) == listed(without.on) < listed(FULLEST.on)


def test_what_goes_is_told_by_the_fewest_switches() -> None:
    no_a = {**WHOLE, "paths": {"/b": {}}}
    no_b = {**WHOLE, "paths": {"/a": {"get": {}}}}
    neither = {"paths": {}, "always": [1, 2]}
    documents = {frozenset(): WHOLE, frozenset("a"): no_a, frozenset("b"): no_b}
    assert parted({**documents, frozenset("ab"): neither}) == [
        {"off": ["a"], "paths": ["/paths/~1a"]},
        {"off": ["b"], "paths": ["/paths/~1b"]},
        {"off": ["a", "b"], "paths": ["/both"]},
    ]


def test_what_differs_by_more_than_what_is_missing_is_an_error() -> None:
    for other in ({**WHOLE, "both": 2}, {**WHOLE, "more": 1}, {**WHOLE, "always": [1]}):
        with pytest.raises(ValueError, match=r"not the same|more"):
            list(missing(WHOLE, other))


def test_the_leanest_serves_less_than_the_fullest() -> None:
    assert served(LEANEST.on)["paths"].keys() < served(FULLEST.on)["paths"].keys()
