"""Every refusal, as RFC 9457 `application/problem+json`.

A problem's `type` is `urn:dts:problem:<code>` and never changes its meaning; `title` is the same for all problems of
one type, `detail` belongs to this one, `errors` points into the request. A problem never says anything of the inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import asyncpg
import msgspec

from scheduler.api.responses import Header, Reply, etag
from scheduler.domain.errors import (
    Conflict,
    DomainError,
    FieldError,
    Forbidden,
    InvalidInput,
    NotFound,
    Overloaded,
    PreconditionFailed,
    TooMany,
    Unauthenticated,
)
from scheduler.store.database import StoreUnavailable

_TITLES = {
    "malformed": "The request cannot be read",
    "wrong-shape": "The body has not the documented shape",
    "invalid": "The request is well-formed but means something impossible",
    "not-found": "There is no such object",
    "unauthenticated": "The request does not show who sends it",
    "forbidden": "Whoever sends the request may not do this",
    "too-many": "Too often; try again later",
    "method-not-allowed": "The resource does not answer this method",
    "forbidden-host": "In development mode the server answers on loopback names only",
    "conflict": "The object's present state refuses the change",
    "precondition-failed": "The object has changed",
    "precondition-required": "The request must say which version it means",
    "too-large": "The body is too large",
    "too-slow": "The body did not arrive in time",
    "unsupported-media-type": "The body's content type is not accepted here",
    "overloaded": "Nothing was taken; try again later",
    "unavailable": "The database cannot be reached",
    "internal": "The server failed",
}


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An RFC 9457 problem; `errors` carries a JSON pointer into the body (or `?name` for a query parameter) each."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    code: str | None = None
    request_id: str | None = None


class Refusal(DomainError):
    """A refusal that only HTTP knows of."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Sequence[Header] = (),
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.errors = list(errors)
        self.headers = list(headers)
        self.code = code


def malformed(detail: str, *errors: FieldError) -> Refusal:
    """Build the 400 for what cannot be read."""
    return Refusal(400, "malformed", detail, errors=errors)


def wrong_shape(*errors: FieldError) -> Refusal:
    """Build the 400 for a body whose fields or types are not the documented ones."""
    return Refusal(400, "wrong-shape", _summary(errors), errors=errors)


def reply_to(error: Exception, request_id: str) -> Reply:
    """Render any exception; what is not foreseen is a 500 that says nothing of the inside."""
    meaning = _meaning(error)
    problem = Problem(
        type=f"urn:dts:problem:{meaning.kind}",
        title=_TITLES[meaning.kind],
        status=meaning.status,
        detail=meaning.detail,
        errors=list(meaning.errors),
        code=meaning.code,
        request_id=request_id,
    )
    return Reply(_encode(problem), meaning.status, b"application/problem+json", meaning.headers)


_encode = msgspec.json.Encoder().encode


class _Meaning(msgspec.Struct, frozen=True):
    status: int
    kind: str
    detail: str
    errors: Sequence[FieldError] = ()
    code: str | None = None
    headers: Sequence[Header] = ()


def _meaning(error: Exception) -> _Meaning:
    meaning = _Meaning(500, "internal", "see the server's log for this request id")
    match error:
        case Refusal():
            meaning = _Meaning(error.status, error.kind, str(error), error.errors, error.code, error.headers)
        case Unauthenticated() | Forbidden() | TooMany() | Overloaded():
            meaning = _turned_away(error)
        case InvalidInput():
            meaning = _Meaning(422, "invalid", _summary(error.errors), error.errors)
        case NotFound():
            meaning = _Meaning(404, "not-found", str(error))
        case Conflict():
            retry = [(b"retry-after", b"1")] if error.code == "in_flight" else []
            meaning = _Meaning(409, "conflict", str(error), code=error.code, headers=retry)
        case PreconditionFailed():
            meaning = _Meaning(412, "precondition-failed", str(error), headers=[etag(error.actual)])
        case StoreUnavailable():
            detail = "the database is away; what was asked for may or may not have been done"
            meaning = _Meaning(503, "unavailable", detail, headers=[(b"retry-after", b"1")])
        case (
            asyncpg.SerializationError()
            | asyncpg.DeadlockDetectedError()
            | asyncpg.QueryCanceledError()
            | asyncpg.LockNotAvailableError()
        ):
            meaning = _Meaning(503, "overloaded", _why_undone(error), headers=[(b"retry-after", b"1")])
        case asyncpg.CharacterNotInRepertoireError() | asyncpg.UntranslatableCharacterError():
            meaning = _Meaning(422, "invalid", "a text holds a character that cannot be stored")
    return meaning


def _why_undone(error: Exception) -> str:
    if isinstance(error, asyncpg.QueryCanceledError):
        return "this took the database too long and nothing was done; try again, or ask for less at once"
    return "the change collided with others and nothing was done; try again"


def _turned_away(error: Unauthenticated | Forbidden | TooMany | Overloaded) -> _Meaning:
    if isinstance(error, Unauthenticated):
        return _Meaning(401, "unauthenticated", str(error), headers=[(b"www-authenticate", b'Bearer realm="dts"')])
    if isinstance(error, Forbidden):
        return _Meaning(403, "forbidden", str(error), code=error.permission)
    status, kind = (429, "too-many") if isinstance(error, TooMany) else (503, "overloaded")
    wait = b"%d" % max(1, math.ceil(error.retry_after))
    return _Meaning(status, kind, str(error), headers=[(b"retry-after", wait)])


def _summary(errors: Sequence[FieldError]) -> str:
    first = errors[0]
    text = f"{first.pointer or 'the body'}: {first.detail}"
    return text if len(errors) == 1 else f"{text} (and {len(errors) - 1} more)"
