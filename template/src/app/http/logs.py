"""Logging of the whole process: one line a record to standard error."""

import logging.config


def configure(level: str) -> None:
    """Set the level of the service's own records; the libraries' are kept to warnings."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "app": {"level": level},
                "uvicorn": {"level": level},
                # Its lines hold the query string, and so a prompt; `app.access` has its own.
                "uvicorn.access": {"level": "CRITICAL"},
            },
        }
    )
