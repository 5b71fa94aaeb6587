"""A pytest plugin for a service's own tests: which of them no switch can reach, and leave them out.

A switch is a module in `app/features`, which `features.installed` alone finds. A test that neither
has it called, by itself or by a fixture of its, nor starts a Python process, runs the same in every
variant.

    APART_TO=file     note the functions all of whose tests are apart
    APART_FROM=file   leave out those that a file names
"""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

TO = os.environ.get("APART_TO")
FROM = os.environ.get("APART_FROM")
# Long, and the same but for what a feature adds: the leanest and the fullest variant will do.
SLOW = {
    "tests/test_drain.py::test_processes_under_a_parent_drain_as_one_does",
    "tests/test_keyring.py::test_a_revoked_key_stops_on_every_worker_and_replica",
    "tests/test_main.py::test_nothing_grows_with_the_number_of_queries",
}


class Watch:
    """Counts how often a switch could have been reached."""

    def __init__(self) -> None:
        self.reached = 0
        self.fixtures: set[pytest.FixtureDef[Any]] = set()
        self.apart: set[str] = set()
        self.others: set[str] = set()

    def audit(self, event: str, told: tuple[Any, ...]) -> None:
        """Python tells of each process that it starts, and by which program."""
        if event == "subprocess.Popen" and "python" in Path(os.fsdecode(told[0])).name:
            self.reached += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        before = self.reached
        made = yield
        if self.reached > before:
            self.fixtures.add(fixturedef)
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Generator[None, object, object]:
        before = self.reached
        result = yield
        used = {each for found in item._fixtureinfo.name2fixturedefs.values() for each in found}
        alone = self.reached == before and not self.fixtures & used
        alone = alone and not item.nodeid.startswith("tests/features/")
        (self.apart if alone else self.others).add(function(item))
        return result

    def pytest_sessionfinish(self) -> None:
        lines = sorted((self.apart - self.others) | (self.others & SLOW))
        Path(str(TO)).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def function(item: pytest.Item) -> str:
    return item.nodeid.split("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    if TO:
        from app import features

        watch = Watch()
        found = features.installed

        def installed(*given: Any) -> Any:  # noqa: ANN401
            watch.reached += 1
            return found(*given)

        features.installed = installed
        sys.addaudithook(watch.audit)
        config.pluginmanager.register(watch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if FROM:
        listed = set(Path(FROM).read_text(encoding="utf-8").splitlines())
        left_out = [item for item in items if function(item) in listed]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if function(item) not in listed]
