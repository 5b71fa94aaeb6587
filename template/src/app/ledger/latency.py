"""Latencies as a histogram: a few counters, and percentiles that are right to five per cent."""

import math
from collections.abc import Mapping

RATIO = 1.1
"""Between the bounds of a bucket; a percentile is its middle, so 5 % off at most."""
LAST = math.ceil(math.log(3_600_000, RATIO))
"""The bucket of an hour and beyond."""


def bucket(milliseconds: float) -> int:
    """The number of a latency's bucket: it ends at `RATIO ** number` milliseconds."""
    if not milliseconds > 1:
        return 0
    return min(math.ceil(math.log(milliseconds, RATIO)), LAST)


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """The milliseconds within which a share (0 to 1) of the queries ended; None for no queries."""
    rank = math.ceil(sum(counts.values()) * share)
    seen = 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= max(rank, 1):
            return round(math.pow(RATIO, number - 0.5), 1)
    return None
