"""`python -m app`, and the installed console script: the command line."""

import gc
import os
import signal

TERMINATED = 128 + signal.SIGTERM
"""The exit code by which shells tell of SIGTERM."""


def main() -> None:
    """Import the command line, and run it."""
    # Process 1 of a container hears only signals that it has a handler for, and imports take long.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(TERMINATED))
    # What is imported stays: to look through it for garbage again and again takes long.
    gc.disable()
    from app.cascade.unused import import_cascadeflow
    from app.cascade.unverified import import_aiohttp

    import_cascadeflow()
    import_aiohttp()
    from app.cli import cli

    gc.freeze()
    gc.enable()
    cli()


if __name__ == "__main__":
    main()
