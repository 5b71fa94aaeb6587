"""The fullest and the leanest project, to be looked at where nothing runs: `examples/`.

    make snapshots

Most files of `template/` are rendered byte for byte. `examples/fullest/` and `examples/leanest/`
hold the others, `examples/fullest.md` and `examples/leanest.md` link every file of a project.
"""

import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import typer

from tests.variants import FULLEST, LEANEST, ROOT
from tests.workshop import Workshop, files

FOLDER = ROOT / "examples"
SHOWN = {
    "fullest": (FULLEST, "every switch on"),
    "leanest": (LEANEST, "every switch off"),
}
LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#]+)")
"""The target in a Markdown link, a page's own: no address, no anchor."""
SOURCE = re.compile(r"^_src_path: .*", re.MULTILINE)
LIST = """\
# The {name} project

What `copier copy` makes of the template with {switches} and every other answer the default.
**Bold** are the files that rendering changes; the others are in [template](../template), byte for
byte. `make snapshots` writes this page.
"""


def examples(workshop: Workshop) -> dict[str, str]:
    """What is in `examples/`, by name."""
    found: dict[str, str] = {}
    template = workshop.plain() / "template"
    for name, (variant, switches) in SHOWN.items():
        project = workshop.fresh(variant)
        names = files(project)
        changed = {file for file in names if not same(template / file, project / file)}
        for file in changed:
            found[f"{name}/{file}"] = shown(project, file, name, names - changed)
        lines = listed(name, names, changed)
        found[f"{name}.md"] = "\n".join([LIST.format(name=name, switches=switches), *lines, ""])
    return found


def same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def shown(project: Path, file: str, name: str, verbatim: set[str]) -> str:
    """A rendered file without this machine's path, its links to files in `template/` made right."""
    text = SOURCE.sub("_src_path: <this repository>", (project / file).read_text(encoding="utf-8"))
    folder = posixpath.dirname(file)

    def led(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[0]))
        place = posixpath.join("examples", name, folder)
        return posixpath.relpath(f"template/{target}", place) if target in verbatim else link[0]

    return LINK.sub(led, text) if file.endswith(".md") else text


def listed(name: str, names: set[str], changed: set[str]) -> Iterator[str]:
    """An item for each folder and a line for each file, which a page shows as one paragraph."""
    for folder, members in groupby(sorted(names, key=posixpath.split), posixpath.dirname):
        yield f"* `{folder or '.'}/`"
        for file in members:
            base = f"`{posixpath.basename(file)}`"
            yield (
                f"  **[{base}]({name}/{file})**"
                if file in changed
                else f"  [{base}](../template/{file})"
            )


def main() -> None:
    """Write `examples/` anew from the working tree."""
    with tempfile.TemporaryDirectory() as folder:
        written = examples(Workshop(Path(folder)))
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, text in written.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
