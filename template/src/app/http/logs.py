"""Logging of the whole process, one line a record, to standard error: JSON for machines, or text.

A line of a request has the request's id. No line has what an exception says, for that may hold a
prompt or a key: of a traceback there is the type, and where it was.
"""

import json
import logging.config
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from app.cascade.errors import CascadeError
from app.cascade.types import Json

Format = Literal["json", "text"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that the running task belongs to."""

FIELDS = "fields"
"""`log.info(…, extra={FIELDS: {…}})`: members of the JSON line; the text has them as it likes."""


def configure(level: str, form: Format = "text") -> None:
    """Set the level of the service's own records; the libraries' are kept to warnings."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"text": {"()": TextLine}, "json": {"()": JsonLine}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": form}},
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            "loggers": {
                "app": {"level": level},
                "uvicorn": {"level": level},
                # Its lines hold the query string, and so a prompt; `app.access` has its own.
                "uvicorn.access": {"level": "CRITICAL"},
            },
        }
    )


class TextLine(logging.Formatter):
    """For a terminal: time, level, logger, message, and the request's id."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds")
        line = f"{time} {record.levelname} {record.name} {record.getMessage()}"
        if request_id := REQUEST_ID.get():
            line = f"{line} id={request_id}"
        if record.exc_info:
            line = "\n".join((line, *_described(record.exc_info)))
        return line


class JsonLine(logging.Formatter):
    """For machines: an object on one line, its time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Json] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["exception"] = list(_described(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def _described(failure: "ExcInfo") -> list[str]:
    """Places, outermost first, and the type; what it says only where we know that it says nothing.

    `CascadeError`s carry no prompt, no answer, no key and no address.
    """
    kind, error, trace = failure
    if kind is None:
        return []
    places = [f"{at.filename}:{at.lineno} in {at.name}" for at in traceback.extract_tb(trace)]
    said = f": {error}" if isinstance(error, CascadeError) else ""
    return [*places, f"{kind.__name__}{said}"]
