"""How long each stage of each variant took: noted by every worker, summed up at the end."""

import json
import os
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
    busy: float
    """Seconds of a processor; those of the running service are noted when it has stopped."""
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
        started, busy = time.perf_counter(), processor()
        passed = False
        try:
            yield now
            passed = True
        finally:
            seconds = time.perf_counter() - started
            note = Note(variant, stage, seconds, processor() - busy, passed, now.shared)
            self._write(note)

    def _write(self, note: Note) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(note)) + "\n")


def processor() -> float:
    """Seconds of a processor that this process has taken, and its children that have ended."""
    return sum(os.times()[:4])


def read(folder: Path) -> list[Note]:
    """The notes of all workers."""
    return [
        Note(**json.loads(line))
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


def table(notes: Sequence[Note], variants: int) -> Iterator[str]:
    """A line for each stage, then how many of the variants passed every one of them."""
    heads = f"{'stage':<10}{'variants':>9}{'passed':>8}{'shared':>8}{'total':>10}{'busy':>10}"
    yield f"{heads}  slowest"
    for stage in STAGES:
        mine = [note for note in notes if note.stage == stage]
        if mine:
            slowest = max(mine, key=lambda note: note.seconds)
            yield (
                f"{stage:<10}{len(mine):>9}{sum(n.passed for n in mine):>8}"
                f"{sum(n.shared for n in mine):>8}"
                f"{sum(n.seconds for n in mine):>8.1f} s{sum(n.busy for n in mine):>8.1f} s"
                f"  {slowest.seconds:.1f} s {slowest.variant}"
            )
    passed = {
        variant: {n.stage for n in notes if n.variant == variant and n.passed}
        for variant in {note.variant for note in notes}
    }
    complete = sum(stages >= set(STAGES) for stages in passed.values())
    yield "shared: the same but for deployment files as a variant that ran these tests already;"
    yield "        only the tests of the deployment files were run again"
    yield "busy: seconds of a processor; those of a running service are with its stop"
    yield f"{complete} of {variants} variants passed every stage"
