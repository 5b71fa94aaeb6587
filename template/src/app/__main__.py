"""`python -m app`: the same commands as the installed console script."""

from app.cli import main

if __name__ == "__main__":
    main()
