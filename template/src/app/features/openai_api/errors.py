"""Errors in OpenAI's shape, whichever dependency raised them."""

from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.cascade.errors import CascadeError
from app.cascade.types import Json
from app.http.problems import (
    DOCUMENTED,
    MEDIA_TYPE,
    Problem,
    from_cascade,
    from_http,
    invalid,
    responses,
)
from app.http.strict import Handler, StrictRoute


class OpenAIRoute(StrictRoute):
    """Answers errors in OpenAI's shape, whichever dependency raised them."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handle_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as failure:
                return self._error(invalid(_by_position(failure)), status=400)
            except HTTPException as failure:
                return self._error(from_http(failure), 400 if failure.status_code == 422 else None)
            except (Problem, CascadeError) as failure:
                return self._error(from_cascade(failure))

        return handle_errors

    def error_body(self, problem: Problem) -> dict[str, Json]:
        return error_body(problem)

    def _error(self, problem: Problem, status: int | None = None) -> JSONResponse:
        return JSONResponse(
            self.error_body(problem), status or problem.status, headers=dict(problem.headers)
        )


def _by_position(failure: RequestValidationError) -> RequestValidationError:
    """A turn or block is named by its place alone; pydantic names its role or type as well."""
    return RequestValidationError(
        [{**error, "loc": _place(tuple(error["loc"]))} for error in failure.errors()]
    )


def _place(where: tuple[int | str, ...]) -> tuple[int | str, ...]:
    match where:
        case (body, "messages", turn, _, "content", int(block), _, *rest):
            return (body, "messages", turn, "content", block, *rest)
        case (body, "messages", turn, _, *rest):
            return (body, "messages", turn, *rest)
        case _:
            return where


class _ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error, as OpenAI's API reference defines it."""

    error: _ErrorDetail


def documented(body: type[BaseModel] = ErrorBody) -> dict[int | str, dict[str, Any]]:
    """Errors of these routes; and the service's own, of requests that reach no route."""
    found = responses(body)
    for response in found.values():
        response["content"] = {MEDIA_TYPE: DOCUMENTED}
    return found


def error_body(problem: Problem) -> dict[str, Json]:
    """A problem as OpenAI's clients read it."""
    kind = "invalid_request_error" if problem.status < 500 else "api_error"
    param = problem.errors[0].field if problem.errors else None
    found = _ErrorDetail(message=problem.detail, type=kind, param=param, code=problem.error)
    return {"error": found.model_dump()}
