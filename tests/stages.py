"""How long each stage of each variant took: noted by every worker, summed up at the end."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

STAGES = ("render", "install", "lint", "types", "deploy", "tests", "boot", "drive", "stop")
"""What a variant passes through, in order."""


@dataclass(frozen=True)
class Note:
    """One stage of one variant."""

    variant: str
    stage: str
    seconds: float
    passed: bool
    shared: bool
    """A variant that differs in deployment files alone had done most of it already."""


@dataclass
class Stage:
    """A stage while it runs."""

    shared: bool = False


class Notebook:
    """Notes in a folder that all workers share; each worker writes a file of its own."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder
        self._file = folder / f"{worker}.jsonl"

    @contextmanager
    def stage(self, variant: str, stage: str) -> Iterator[Stage]:
        """Take the time of a stage, and note whether it passed."""
        now = Stage()
        started = time.perf_counter()
        passed = False
        try:
            yield now
            passed = True
        finally:
            seconds = time.perf_counter() - started
            self._write(Note(variant, stage, seconds, passed, now.shared))

    def _write(self, note: Note) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(note)) + "\n")


def read(folder: Path) -> list[Note]:
    """The notes of all workers."""
    return [
        Note(**json.loads(line))
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


def table(notes: Sequence[Note], variants: int) -> Iterator[str]:
    """A line for each stage, then how many of the variants passed every one of them."""
    yield f"{'stage':<10}{'variants':>9}{'passed':>8}{'shared':>8}{'total':>10}  slowest"
    for stage in STAGES:
        mine = [note for note in notes if note.stage == stage]
        if mine:
            slowest = max(mine, key=lambda note: note.seconds)
            yield (
                f"{stage:<10}{len(mine):>9}{sum(n.passed for n in mine):>8}"
                f"{sum(n.shared for n in mine):>8}"
                f"{sum(n.seconds for n in mine):>8.1f} s"
                f"  {slowest.seconds:.1f} s {slowest.variant}"
            )
    passed = {
        variant: {n.stage for n in notes if n.variant == variant and n.passed}
        for variant in {note.variant for note in notes}
    }
    complete = sum(stages >= set(STAGES) for stages in passed.values())
    yield "shared: the same but for deployment files as a variant that ran these tests already;"
    yield "        only the tests of the deployment files were run again"
    yield f"{complete} of {variants} variants passed every stage"
