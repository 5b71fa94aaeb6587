"""Start the service of each folder named, in one process of a variant's own environment.

    boot_many.py FOLDER…

A folder holds a rendered project and, in `metadata/`, what an installer makes of it. Prints a JSON
line for each: what its routes say that comes from the answers.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from app.cascade import config
from app.main import create_app
from fastapi.testclient import TestClient


def boot(folder: Path) -> dict[str, object]:
    """What a service says of itself."""
    metadata = str(folder / "metadata")
    sys.path.insert(0, metadata)
    importlib.invalidate_caches()
    os.chdir(folder)
    try:
        with TestClient(create_app()) as client:
            health, info = client.get("/health"), client.get("/openapi.json").json()["info"]
            docs = client.get("/docs")
    finally:
        sys.path.remove(metadata)
    live = config.load(Path("cascade.toml")).cascade
    return {
        "statuses": [health.status_code, docs.status_code],
        "name": info["title"],
        "description": info["description"],
        "models": [live.drafter, live.verifier],
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(boot(Path(name))), flush=True)
