"""`python -m app`, and the installed console script: the command line."""

import gc
import os
import signal
import sys
from typing import cast

TERMINATED = 128 + signal.SIGTERM
"""The exit code by which shells tell of SIGTERM."""
UNSEEN = ("pygments", "rich.console")
"""What cascadeflow and httpx import to draw with if it is there, and nobody sees who serves."""


def main() -> None:
    """Import the command line, and run it."""
    # Process 1 of a container hears only signals that it has a handler for, and imports take long.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))
    # What is imported stays: to look through it for garbage again and again takes long.
    gc.disable()
    modules = cast(dict[str, object], sys.modules)
    modules.update(dict.fromkeys(UNSEEN))
    from app.cli import cli

    for name in UNSEEN:
        del modules[name]
    gc.freeze()
    gc.enable()
    cli()


if __name__ == "__main__":
    main()
