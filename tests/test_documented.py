"""What the pages tell people to type, typed: every command and file, in a rendered project."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.conftest import Render
from tests.documents import CURL, Block, Reader, blocks, in_sentences, put
from tests.mutation.mutants import mutants
from tests.processes import free_ports, run
from tests.variants import FULLEST, ROOT, VARIANTS
from tests.workshop import Workshop, commit

KUBECTL = """\
#!/bin/bash -e
case "$1" in
  create) exec {kubectl} "$@" --dry-run=client --output yaml ;;
  apply) exec {kubectl} kustomize "$3" ;;
  port-forward)
    {kubectl} kustomize deploy/kubernetes/overlays/dev | grep -q "name: ${2#service/}$" ;;
esac
"""
"""Without a cluster: what would be sent to it is printed."""
PARSERS: dict[str, Callable[[str], object]] = {"json": json.loads, "yaml": yaml.safe_load}
"""Languages of blocks that nobody carries out here: the service's own tests compare the line of a
log with a real one, and the tests of monitoring give the scrape to promtool."""
A_FEW = "--cov-fail-under=0 tests/test_config.py tests/test_reference.py"
ELSEWHERE = {
    "docker.md": "tests/docker_page.py, in the test of the image",
    "features.md": "the newcomer below",
}
"""Pages that another test carries out."""
TYPED_ELSEWHERE = {
    "promtool test rules deploy/monitoring/alerts_test.yaml": "tests/test_monitoring.py",
    "uvx pre-commit install": "tests/test_updates.py",
}
"""Commands in sentences that another test carries out."""


@pytest.fixture
def bin(tmp_path: Path, kustomize: list[str]) -> Path:
    """Programs that a reader has."""
    folder = tmp_path / "bin"
    put(folder, "curl", CURL)
    put(folder, "kubectl", KUBECTL.replace("{kubectl}", kustomize[0]))
    ours = Path(sys.executable).parent
    (folder / "uv").symlink_to(ours / "uv")
    put(folder, "uvx", f'#!/bin/bash\nshift\nexec "{ours / "copier"}" "$@" --defaults\n')
    return folder


@pytest.fixture
def following(bin: Path) -> Iterator[Callable[[Path], Reader]]:
    """Starts a reader in a folder."""
    with ExitStack() as readers:

        def start(folder: Path) -> Reader:
            port = str(*free_ports(1))
            reader = readers.enter_context(Reader(folder, bin, {"PORT": port}))
            # The pages' own port may be taken; the whole suite is what the variants run.
            few = f"PYTEST_ADDOPTS='{A_FEW}' make check"
            reader.instead = {":8000": f":{port}", "make check": few}
            return reader

        yield start


def pages(project: Path) -> list[Path]:
    """All pages, the one last whose first command closes the service to who has no key."""
    docs = sorted((project / "docs").glob("*.md"), key=lambda page: (page.stem == "keys", page))
    return [project / "README.md", *docs]


def test_every_command_of_the_pages_does_what_it_says(
    render: Render, workshop: Workshop, following: Callable[[Path], Reader]
) -> None:
    project, count = render(FULLEST.answers), 0
    workshop.install(project)
    commit(project)
    (project / "secrets.env").write_text("OPENAI_API_KEY=x\n")
    made = ("added.toml", "mine.jsonl", "secrets.env", "service.log")
    (project / ".git/info/exclude").write_text("\n".join(made))
    reader = following(project)
    for page in pages(project):
        if page.name in ELSEWHERE:
            continue
        for block in blocks(page):
            if block.language in PARSERS:
                assert PARSERS[block.language](block.text)
                continue
            check(block, reader.follow(carried_out(block, project)))
            count += len(block.commands)
    # At last, for among them is one that makes a key, which closes the service.
    for command in [command for page in pages(project) for command in in_sentences(page)]:
        if command.text not in TYPED_ELSEWHERE:
            reader.follow(command)
            count += 1
    workshop.tell(f"pages of a project: {count} commands carried out")


def test_the_tables_of_settings_are_those_of_the_code(render: Render, workshop: Workshop) -> None:
    project = render(FULLEST.answers)
    workshop.install(project)
    before = {page: page.read_text(encoding="utf-8") for page in pages(project)}
    run(project / ".venv/bin/python", "-m", "tests.reference", cwd=project)
    assert {page: page.read_text(encoding="utf-8") for page in before} == before


def carried_out(block: Block, project: Path) -> Block:
    """Tables for cascade.toml are added to it, and the service checks the file."""
    if block.language != "toml":
        return block
    text = (project / "cascade.toml").read_text(encoding="utf-8") + block.text
    (project / "added.toml").write_text(text, encoding="utf-8")
    return replace(block, language="bash", text="CASCADE_FILE=added.toml uv run my-cascade check")


def check(block: Block, told: str) -> None:
    """What a reader is promised, where it is more than that a command succeeds."""
    if block.page == "streaming.md":
        assert json.loads(told.splitlines()[-2].removeprefix("data: "))["type"] == "complete"


def test_a_newcomer_gets_from_the_readme_to_a_feature_and_to_manifests(
    template: Path, tmp_path: Path, following: Callable[[Path], Reader]
) -> None:
    newcomer = following(tmp_path)
    newcomer.instead["<this repository>"] = str(template)
    copy, *_, update = (block for block in blocks(ROOT / "README.md") if "uvx" in block.text)
    newcomer.follow(copy)
    project = tmp_path / "my-service"
    assert not (project / "deploy/kubernetes").exists()

    owner = following(project)
    owner.instead |= newcomer.instead
    first, _, ask, *_ = blocks(project / "README.md")
    assert "serve" in first.text
    told = iter(re.sub(r"\d+", "0", owner.follow(ask)).splitlines())
    (shown,) = (block for block in blocks(ROOT / "README.md") if block.language == "console")
    for line in re.sub(r"\d+", "0", shown.text).splitlines():
        start = line.removesuffix(" …")
        assert not start or start.startswith("$") or any(each.startswith(start) for each in told)
    for block in blocks(project / "docs/features.md"):
        owner.follow(block)
    commit(project)
    owner.instead["openai_api=true"] = "kubernetes=true"
    (flip,) = (line for line in update.commands if "--data" in line)
    owner.follow(replace(update, text=flip))
    assert (project / "src/app/features/slowest.py").exists()
    for block in blocks(project / "docs/kubernetes.md"):
        if "production" in block.text:
            (project / "secrets.env").write_text("OPENAI_API_KEY=x\n")
            assert "kind: Deployment" in owner.follow(block)


def test_the_numbers_of_the_readme_are_counted() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "template/docs/faults.md").read_text(encoding="utf-8")
    heading, *faults = (line for line in page.splitlines() if re.match(r"\| (?!\*)\w", line))
    cells = len(faults) * len(heading.split("|")[3:-1]) * len(("streamed", "not")) * 2
    assert f"Its {len(faults)} faults" in text
    assert f"are {cells} tests" in text
    assert f"all {len(VARIANTS)} variants" in text
    (told,) = re.findall(r"some ([\d,]+) in all", text)
    assert round(len(list(mutants(ROOT))), -2) == int(told.replace(",", ""))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_the_commands_of_the_repository_are_targets_of_make(page: str) -> None:
    """What they do takes minutes to hours; each is run by a test or a job of its own, or for it."""
    commands = [line for block in blocks(ROOT / page) for line in block.commands]
    commands += [command.text for command in in_sentences(ROOT / page)]
    ours = [line for line in commands if line.startswith("make") and "make update" not in line]
    assert ours
    for command in ours:
        run("bash", "-c", command.replace("make", "make --dry-run", 1), cwd=ROOT)


def test_a_switch_is_added_as_described(workshop: Workshop, tmp_path: Path) -> None:
    repository = tmp_path / "template"
    shutil.copytree(workshop.template(), repository)
    with Reader(repository, repository, {}) as maintainer:
        *changes, suite = blocks(ROOT / "docs/adding-a-switch.md")
        for block in changes:
            maintainer.follow(block)
    # The last block is for a quarter of an hour; this is what of it knows the new switch alone.
    assert "make test-feature NAME=version" in suite.text
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    told = run(*pytest, "tests/test_switches.py", "-k", "version or words", cwd=repository)
    assert "3 passed" in told
