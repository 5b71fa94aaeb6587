"""`python -m app`, and the installed console script: the command line."""

import gc


def main() -> None:
    """Import the command line, and run it."""
    # What is imported stays: to look through it for garbage again and again takes long.
    gc.disable()
    from app.cli import cli

    gc.freeze()
    gc.enable()
    cli()


if __name__ == "__main__":
    main()
