"""How long `copier copy --defaults` takes, beside the same for a template of one empty file.

    .venv/bin/python benchmarks/copy_time.py

Both are commands without a terminal, from a local repository, in turns, so that what else the
machine does falls on both. Beside the time on the clock stands that of the processor, git's
included, which a busy machine hardly changes.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
COPIER = Path(sys.executable).with_name("copier")
EMPTY = {"copier.yml": "_subdirectory: template\nname: {type: str, default: x}\n", "template/x": ""}
GIT = ("git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@example.com")


def main(rounds: Annotated[int, typer.Option(min=1)] = 15) -> None:
    """Copy both templates in turns."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, text in EMPTY.items():
            (place / "empty" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "empty" / name).write_text(text, encoding="utf-8")
        # The working tree as it is; Copier would otherwise take the newest release.
        listed = subprocess.check_output(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True
        )
        for name in filter(None, listed.split("\0")):
            (place / "ours" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "ours" / name).write_bytes((ROOT / name).read_bytes())
        seconds: dict[str, list[tuple[float, float]]] = {"empty": [], "ours": []}
        for template in seconds:
            for command in (("init", "--quiet"), ("add", "--all"), ("commit", "-qm", "x")):
                subprocess.run([*GIT, *command], cwd=place / template, check=True)
            subprocess.run([*GIT, "tag", "v1.0.0"], cwd=place / template, check=True)
        for number in range(rounds):
            for template, times in seconds.items():
                times.append(copy(place, template, f"{template}{number}"))
        for template, times in seconds.items():
            count = sum(path.is_file() for path in (place / f"{template}0").rglob("*"))
            clock, processor = zip(*times, strict=True)
            typer.echo(
                f"{template:<6}{count:>4} files  clock: fastest {min(clock):.2f} s,"
                f" median {statistics.median(clock):.2f} s"
                f"  processor: median {statistics.median(processor):.2f} s"
            )
        for number, what in enumerate(("clock, fastest", "processor, fastest")):
            empty, ours = (min(each[number] for each in times) for times in seconds.values())
            typer.echo(f"{what}: {ours:.2f} s, {ours / empty:.2f} times the empty template")


def copy(place: Path, template: str, project: str) -> tuple[float, float]:
    """The seconds of one copy, on the clock and of the processor."""
    settings = place / "settings.yml"
    settings.write_text("{}\n")
    started, used = time.perf_counter(), processor()
    subprocess.run(
        [COPIER, "copy", "--defaults", "--quiet", template, project],
        cwd=place,
        env={**os.environ, "COPIER_SETTINGS_PATH": str(settings)},
        stdin=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started, processor() - used


def processor() -> float:
    """The seconds of a processor that all processes started here have had."""
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


if __name__ == "__main__":
    typer.run(main)
