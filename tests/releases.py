"""Every released template, rebuilt from its record, with the present as the next release."""

import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from tests.processes import run
from tests.variants import ROOT
from tests.workshop import commit, copy_working_tree

RECORDS = {Version(file.name.removesuffix(".tar.xz")): file for file in ROOT.glob("releases/*")}
PRESENT = Version(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
EARLIER = sorted(version for version in RECORDS if version < PRESENT)


def history(folder: Path) -> None:
    """A repository with a commit and a tag for each release; the working tree is the last."""
    for version in EARLIER:
        extract(version, folder)
        commit(folder, f"v{version}")
        run("git", "rm", "-r", "--quiet", ".", cwd=folder)
    copy_working_tree(folder)
    commit(folder, f"v{PRESENT}")


def extract(version: Version, folder: Path) -> None:
    """What a release is rendered from."""
    with tarfile.open(RECORDS[version]) as record:
        record.extractall(folder, filter="data")


class Tally:
    """How the edits fared in updates: noted by every worker, summed up at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, release: Version, variant: str, edit: str, passed: bool) -> None:
        place = self._folder / str(release) / edit
        place.mkdir(parents=True, exist_ok=True)
        (place / variant).write_text("passed" if passed else "failed")

    def table(self) -> Iterator[str]:
        """A line for each release and edit."""
        if self._folder.exists():
            yield f"{'update from':<14}{'edit':<14}{'variants':>9}{'passed':>8}"
        tried = passed = 0
        for place in sorted(self._folder.glob("*/*")):
            results = [file.read_text() for file in place.iterdir()]
            yield (
                f"{place.parent.name:<14}{place.name:<14}{len(results):>9}"
                f"{results.count('passed'):>8}"
            )
            tried, passed = tried + len(results), passed + results.count("passed")
        if tried:
            yield f"{passed} of {tried} updates of an edit passed"
