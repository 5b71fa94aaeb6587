"""Runs the service as its console script does, and notes a few hundred times a second where it is.

    python sampled.py FILE serve …

Writes to FILE as JSON, when it ends, for each stage and each function of it how often it was seen,
from SIGUSR2 on. A sample belongs to the innermost frame whose file belongs to a stage, so that what
the standard library does counts for its caller.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

STAGES = {
    "/app/cascade/upstream/": "client",
    "/app/cascade/routing": "cascadeflow",
    "/app/cascade/linear": "cascadeflow",
    "/app/cascade/view": "cascadeflow",
    "/app/cascade/provider": "cascadeflow",
    "/app/cascade/": "engine",
    "/app/ledger/": "ledger",
    "/app/features/streaming": "routes",
    "/app/features/": "features",
    "/app/": "routes",
    "/cascadeflow/": "cascadeflow",
    "/re2": "cascadeflow",
    "/aiohttp/": "client",
    "/yarl/": "client",
    "/multidict/": "client",
    "/pydantic": "serialization",
    "/json/": "serialization",
    "/fastapi/": "FastAPI",
    "/starlette/": "FastAPI",
    "/uvicorn/": "server",
    "/slowapi/": "features",
    "/limits/": "features",
    "/prometheus_client/": "features",
    "/redis/": "ledger",
    "/logging/": "log",
}
INTERVAL = 0.002
seen: Counter[tuple[str, str]] = Counter()
known: dict[str, str] = {}


def stage_of(file: str) -> str:
    found = known.get(file)
    if found is None:
        # An installed package's path may have a stage's name further up.
        below = file.rpartition("/site-packages")[2].rpartition("/src")[2]
        found = known[file] = next((name for part, name in STAGES.items() if part in below), "")
    return found


def sample(_: int, frame: FrameType | None) -> None:
    while frame is not None:
        code = frame.f_code
        if stage := stage_of(code.co_filename):
            seen[stage, f"{Path(code.co_filename).name}:{code.co_qualname}"] += 1
            return
        frame = frame.f_back
    seen["event loop", ""] += 1


def begin(_: int, __: FrameType | None) -> None:
    seen.clear()
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)


def finish(file: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    found = [[stage, where, count] for (stage, where), count in seen.items()]
    file.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, sample)
    signal.signal(signal.SIGUSR2, begin)
    from app.__main__ import main

    into = Path(sys.argv.pop(1))
    try:
        main()
    finally:
        finish(into)
