"""How much is done for one query, in calls of Python functions: a clock would tell more of the day.

If a limit is passed, somebody has added work to every query: do it once, or raise the limit and say
in the commit what is bought with it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx
import pytest

import app
from tests.conftest import ACCEPTED, REJECTED, Background

OURS = str(Path(app.__file__).parent)
LIBRARIES = ("/cascadeflow/", "/fastapi/", "/starlette/")
"""Not those of the network: how often they are called is up to the network."""
MOST = 800
"""With every switch on: up to 700 are counted."""
OTHERS = [f"How do I boil {number} eggs?" for number in range(5)]


class Calls:
    """Counts what a thread calls of the service and of its libraries."""

    def __init__(self) -> None:
        self.count = 0
        self._counted: dict[str, bool] = {}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        file = frame.f_code.co_filename
        if file not in self._counted:
            self._counted[file] = any(part in file for part in (OURS, *LIBRARIES))
        self.count += self._counted[file]


async def profile(note: Callable[[FrameType, str, object], object] | None) -> None:
    """For the thread that this runs in."""
    sys.setprofile(note)


@contextmanager
def counted(background: Background) -> Iterator[Calls]:
    calls = Calls()
    background.run(profile(calls.note))
    try:
        yield calls
    finally:
        background.run(profile(None))


@pytest.mark.parametrize(("query", "accepted"), [(ACCEPTED, True), (REJECTED, False)])
def test_a_query_takes_no_more_work_than_it_did(
    client: httpx.Client, background: Background, query: str, accepted: bool
) -> None:
    counts = []
    for _ in range(3):
        # Nothing of the question is known from the last time.
        for other in OTHERS:
            assert client.post("/api/query", json={"query": other}).status_code == 200
        with counted(background) as calls:
            answer = client.post("/api/query", json={"query": query}).json()
        counts.append(calls.count)
        assert answer["draft_accepted"] is accepted
    assert 0 < min(counts) <= MOST
