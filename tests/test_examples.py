"""`examples/` is what is rendered today, and no page links to what is not there.

Not in `test_snapshots.py`, which the mutants of `copier.yml` are run against: any change of what is
rendered turns this red, so that it would say nothing of the other tests.
"""

from pathlib import Path

import pytest

from tests.examples import FOLDER, LINK, examples
from tests.processes import run
from tests.variants import FULLEST, LEANEST, ROOT, SWITCHES, Variant
from tests.workshop import Workshop, files


def test_the_examples_are_what_is_rendered(workshop: Workshop) -> None:
    rendered = examples(workshop)
    kept = {
        path.relative_to(FOLDER).as_posix(): path.read_text(encoding="utf-8")
        for path in FOLDER.rglob("*")
        if path.is_file()
    }
    stale = {name for name in rendered | kept if rendered.get(name) != kept.get(name)}
    assert not stale, "as meant? then `make snapshots`, and read the diff"


def dead(page: Path) -> list[str]:
    """The links of a page that lead to nothing."""
    links = LINK.findall(page.read_text(encoding="utf-8"))
    return [f"{page}: {link}" for link in links if not (page.parent / link).exists()]


def test_every_link_of_this_repository_leads_somewhere() -> None:
    names = run("git", "ls-files", "-co", "--exclude-standard", "*.md", cwd=ROOT).splitlines()
    # In `template/` some have a tag for a name: those are looked at where they are rendered.
    pages = [ROOT / name for name in names if not name.startswith("template/")]
    assert [link for page in pages for link in dead(page)] == []


@pytest.mark.parametrize(
    "variant",
    [FULLEST, LEANEST, *(FULLEST.without(switch) for switch in SWITCHES)],
    ids=lambda variant: variant.name,
)
def test_every_link_of_a_project_leads_somewhere(variant: Variant, workshop: Workshop) -> None:
    project = workshop.fresh(variant)
    pages = [project / name for name in files(project) if name.endswith(".md")]
    assert [link for page in pages for link in dead(page)] == []
