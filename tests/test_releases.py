"""Releases: the changelog, the records and the version agree, and a record can be made again."""

import lzma
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from hooks import release
from tests.releases import PRESENT, RECORDS, extract
from tests.variants import ROOT
from tests.workshop import commit, files

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
HEADINGS = ["What changes in your project", "What you must do"]


def test_the_changelog_the_records_and_the_version_agree() -> None:
    told = [Version(number) for number in re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)]
    assert told == sorted({*RECORDS, PRESENT}, reverse=True)


def test_each_release_says_what_changes_and_what_to_do() -> None:
    for section in re.split(r"^## .*$", CHANGELOG, flags=re.MULTILINE)[1:]:
        assert re.findall(r"^### (.*)$", section, re.MULTILINE) == HEADINGS
        assert all(re.findall(rf"^### {heading}\n\n\* ", section, re.M) for heading in HEADINGS)


@pytest.mark.parametrize("version", sorted(RECORDS), ids=str)
def test_a_record_holds_what_copier_reads(version: Version, tmp_path: Path) -> None:
    extract(version, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(release.RENDERED_FROM)
    configuration = yaml.safe_load((tmp_path / "copier.yml").read_text(encoding="utf-8"))
    check_trust(configuration)


def test_the_present_needs_no_trust() -> None:
    check_trust(yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8")))


def check_trust(configuration: dict[str, object]) -> None:
    """No copy needs trust, and an update only where it crosses a migration's version."""
    assert not {"_tasks", "_jinja_extensions"} & configuration.keys()
    migrations = configuration.get("_migrations", [])
    assert isinstance(migrations, list)
    assert all("version" in migration for migration in migrations)


def test_what_was_released_under_the_present_version_is_the_present(tmp_path: Path) -> None:
    """Whoever changes the template after its release gives it a new version."""
    if PRESENT in RECORDS:
        extract(PRESENT, tmp_path)
        changed = [
            f for f in files(tmp_path) if (ROOT / f).read_bytes() != (tmp_path / f).read_bytes()
        ]
        assert changed == []


def test_the_same_content_gives_the_same_record(tmp_path: Path) -> None:
    version = max(RECORDS)
    extract(version, tmp_path)
    commit(tmp_path)
    again = release.archive("HEAD", tmp_path)
    assert lzma.decompress(again) == lzma.decompress(RECORDS[version].read_bytes())


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("v1", "v1 is no version as PEP 440 writes it"),
        ("99.0.0", "CHANGELOG.md has no section `## 99.0.0`"),
        (str(min(RECORDS)), "exists: what was released stays as it is"),
    ],
)
def test_a_release_is_refused_with_a_sentence(version: str, told: str) -> None:
    script = ROOT / "hooks" / "release.py"
    ended = subprocess.run([sys.executable, script, version], capture_output=True, text=True)
    assert ended.returncode == 1
    assert told in ended.stderr
