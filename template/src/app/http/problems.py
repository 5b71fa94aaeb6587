"""Every error as `application/problem+json` (RFC 9457), with a short `error` code beside it."""

import logging
import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.cascade.errors import (
    BudgetExceeded,
    CascadeError,
    ContextExceeded,
    DeadlineExceeded,
    LedgerUnavailable,
    NotReady,
    UpstreamFailed,
)
from app.cascade.types import Json
from app.http import schemas
from app.http.disconnect import ClientGone
from app.http.strict import Refused

MEDIA_TYPE = "application/problem+json"
DOCUMENTED = {"schema": {"$ref": "#/components/schemas/ProblemDetail"}}
MOST_FIELDS = 20
log = logging.getLogger(__name__)


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    message: str


class ProblemDetail(BaseModel):
    """The body of every error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    error: str
    errors: list[FieldProblem] | None = None
    budget: Literal["service", "account", "query"] | None = None
    """Of a 402: which budget it is, the US dollars left of it, the seconds until it is whole."""
    remaining: float | None = None
    resets_in: int | None = None


@dataclass(eq=False)
class Problem(Exception):
    """An error that a client may see; raise it anywhere below a route."""

    status: int
    error: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[FieldProblem, ...] = ()
    more: Mapping[str, Json] = field(default_factory=dict)
    """Members of `ProblemDetail` that only this error has."""

    def body(self) -> dict[str, Json]:
        detail: dict[str, Json] = ProblemDetail(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            error=self.error,
            errors=list(self.errors) or None,
        ).model_dump(exclude_none=True)
        return {**detail, **self.more}


def from_cascade(failure: Exception) -> Problem:
    """What a client is told of a failed query; nothing of prompts, keys or addresses."""
    match failure:
        case Problem():
            return failure
        case BudgetExceeded():
            return _over_budget(failure)
        case LedgerUnavailable():
            return Problem(
                503,
                "ledger_unavailable",
                "The books are out of reach, and no query is answered unbudgeted.",
                {"Retry-After": "1"},
            )
        case ContextExceeded():
            return Problem(
                422,
                "context_exceeded",
                f"Prompt and answer together exceed the {failure.context} tokens that"
                f" {failure.model} takes; shorten the prompt or lower max_tokens.",
            )
        case DeadlineExceeded():
            return Problem(504, "timeout", f"No answer came within {failure.seconds:g} seconds.")
        case UpstreamFailed():
            return _from_upstream(failure)
        case NotReady():
            return Problem(
                503, "not_ready", "The service is starting or stopping.", {"Retry-After": "1"}
            )
        case CascadeError():
            return Problem(502, "upstream_error", "The cascade gave no answer.")
        case _:
            return unexpected(failure)


def _over_budget(failure: BudgetExceeded) -> Problem:
    left: dict[str, Json] = {"remaining": float(failure.remaining), "budget": failure.scope}
    if failure.scope == "query":
        return Problem(
            402,
            "budget_exceeded",
            f"This query could cost more than the {failure.remaining:.4f} US dollars that one may"
            " cost; shorten the prompt or lower max_tokens.",
            more=left,
        )
    whose = "today's budget" if failure.scope == "service" else "this key's budget for today"
    seconds = math.ceil(failure.resets_in)
    return Problem(
        402,
        "budget_exceeded",
        f"This query could cost more than the {failure.remaining:.4f} US dollars that are"
        f" left of {whose}; it is whole again in {seconds} seconds.",
        more={**left, "resets_in": seconds},
    )


def _from_upstream(failure: UpstreamFailed) -> Problem:
    fault = failure.fault
    match fault.kind:
        case "timeout":
            return Problem(504, "timeout", f"The model {failure.model} did not answer in time.")
        case "overloaded" | "open":
            wait = math.ceil(fault.retry_after or 1)
            return Problem(
                503,
                "upstream_overloaded",
                f"The model {failure.model} cannot take queries now.",
                {"Retry-After": str(wait)},
            )
        case _:
            return Problem(
                502, "upstream_error", f"The model {failure.model} gave no answer: {fault}."
            )


def responses(body: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """How routes document their errors."""
    return {
        "4XX": {"model": body, "description": "The request is at fault"},
        "5XX": {"model": body, "description": "The service is at fault"},
    }


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem, and document it as one."""
    app.add_exception_handler(Problem, _handle)
    app.add_exception_handler(CascadeError, _handle)
    app.exception_handler(RequestValidationError)(_handle_validation)
    app.exception_handler(HTTPException)(_handle_http)
    app.exception_handler(ClientGone)(_handle_gone)
    schemas.amend(app, _correct_media_type)


def _correct_media_type(_: dict[str, Any], operation: dict[str, Any]) -> None:
    """FastAPI documents each error with the media type of the route's answers."""
    for response in operation["responses"].values():
        content = response.get("content", {})
        for name in [name for name, body in content.items() if body == DOCUMENTED]:
            content[MEDIA_TYPE] = content.pop(name)


def respond(problem: Problem) -> JSONResponse:
    """The response for a problem."""
    return JSONResponse(
        problem.body(), problem.status, headers=dict(problem.headers), media_type=MEDIA_TYPE
    )


async def _handle(_: Request, failure: Exception) -> JSONResponse:
    return respond(from_cascade(failure))


async def _handle_validation(_: Request, failure: RequestValidationError) -> JSONResponse:
    return respond(invalid(failure))


def invalid(failure: RequestValidationError) -> Problem:
    """422, naming the first fields; the values are not repeated."""
    first = failure.errors()[:MOST_FIELDS]
    found = ((_dotted(each), str(each["msg"]).removeprefix("Value error, ")) for each in first)
    # A body that several dependencies read is refused by each of them.
    fields = tuple(FieldProblem(field=where, message=what) for where, what in dict.fromkeys(found))
    summary = "; ".join(f"{each.field}: {each.message}" for each in fields)
    return Problem(422, "validation_error", summary, errors=fields)


async def _handle_gone(_: Request, __: ClientGone) -> Response:
    # Nobody reads it; the access log shows the status that nginx has for this.
    return Response(status_code=499)


async def _handle_http(request: Request, failure: HTTPException) -> JSONResponse:
    problem = from_http(failure)
    if problem.status == 405:
        problem.headers = {"Allow": ", ".join(_methods(request))}
    return respond(problem)


def _methods(request: Request) -> list[str]:
    """All that the path takes (RFC 9110, section 15.5.6); Starlette names one route's alone."""
    routes = request.app.router.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    ]


def from_http(failure: HTTPException) -> Problem:
    """What FastAPI and Starlette refuse by themselves."""
    status = failure.status_code
    # Python 3.13 renamed the phrase of 413.
    if isinstance(failure, Refused):
        field = FieldProblem(field=failure.field, message=failure.why)
        return Problem(422, "validation_error", failure.detail, errors=(field,))
    phrase = "Content Too Large" if status == 413 else HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    return Problem(status, code, str(failure.detail), dict(failure.headers or {}))


def unexpected(failure: Exception) -> Problem:
    """500. The exception's own text may hold a prompt; the log gets its type and place alone."""
    frames = traceback.extract_tb(failure.__traceback__)[-1:]
    place = "".join(f" in {frame.filename}:{frame.lineno}" for frame in frames)
    log.error("unexpected %s%s", type(failure).__name__, place)
    return Problem(500, "internal_error", "The service failed; its log says why.")


def _dotted(error: Mapping[str, Any]) -> str:
    # What follows in the place of a JSON error is an offset, not a field.
    where = [str(part) for part in error["loc"][: 1 if error["type"] == "json_invalid" else None]]
    inner = where[1:] if where and where[0] in ("body", "query", "path", "header") else where
    return ".".join(inner) or "body"
