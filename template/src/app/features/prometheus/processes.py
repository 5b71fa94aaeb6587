"""Several workers of one machine count together, in files that outlive each of them.

prometheus_client keeps counters and histograms in a file for each process; whoever is scraped
adds them up. A worker that was killed leaves its file, so no sum ever falls. Gauges of what is
under way are those of the living: the files of the dead are dropped before they are read.
"""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from app.cascade.errors import ConfigurationError
from app.http.problems import Problem

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own; it reads it when it is imported."""


def folder() -> Path | None:
    """Where the processes of this service count together, if there are several."""
    path = os.environ.get(VARIABLE)
    return Path(path) if path else None


@contextmanager
def shared() -> Iterator[None]:
    """A new place for the workers that this process will start.

    Raises:
        ConfigurationError: there is no room for one.
    """
    if folder():
        yield
        return
    try:
        place = TemporaryDirectory(prefix="metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _unusable(error) from None
    with place as path:
        os.environ[VARIABLE] = path
        try:
            yield
        finally:
            del os.environ[VARIABLE]


def enter() -> None:
    """Begin to count in this process, which may have the number of one that was killed.

    Raises:
        ConfigurationError: the place that was named cannot be used.
    """
    if place := folder():
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(error) from None
        _drop_gauges(place, os.getpid())


def check() -> None:
    """Refuse to tell the counts of one worker as if they were all.

    Raises:
        Problem: 503, where this process is one of several and none knows of the others.
    """
    if multiprocessing.parent_process() and not folder():
        raise Problem(
            503,
            "metrics_unavailable",
            f"This worker knows only its own counts; set {VARIABLE} to an empty directory.",
        )


def collect(own: CollectorRegistry, answer: CollectorRegistry) -> None:
    """Have the answer hold what was counted: by this process, or by all that count together."""
    place = folder()
    if place is None:
        answer.register(own)
        return
    for number in {path.stem.rpartition("_")[2] for path in place.glob("gauge_live*.db")}:
        if not _lives(int(number)):
            _drop_gauges(place, int(number))
    MultiProcessCollector(answer, str(place))  # type: ignore[no-untyped-call]


def _drop_gauges(place: Path, number: int) -> None:
    for path in place.glob(f"gauge_live*_{number}.db"):
        path.unlink(missing_ok=True)


def _unusable(error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{VARIABLE}: name a folder that can be written to ({error.strerror})"
    )


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
