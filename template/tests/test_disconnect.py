"""A client that leaves takes its upstream request with it, and pays for what was done."""

import pytest

from tests.conftest import ACCEPTED, Leave, Left, eventually


@pytest.mark.parametrize(
    ("direct", "verifier"),
    [(False, False), (False, True), (True, True)],
    ids=["drafting", "verifying", "direct"],
)
def test_the_upstream_stops_and_the_books_say_so(
    leave: Leave, direct: bool, verifier: bool
) -> None:
    left = leave("/api/query", {"query": ACCEPTED, "force_direct": direct}, verifier=verifier)
    # It takes some milliseconds; a busy machine may take longer.
    assert left.seconds < 1
    assert eventually(lambda: outcomes(left) == {"cancelled": 1})
    assert left.client.get("/api/stats").json()["spent_today"] > 0


def outcomes(left: Left) -> object:
    return left.client.get("/api/stats").json()["outcomes"]
