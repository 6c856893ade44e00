"""What can go wrong for a caller of the API. Each refusal carries the server's problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from scheduler.domain.errors import FieldError
from scheduler.wire.tasks import Created

_NOTHING_TAKEN = frozenset({"overloaded"})


class Problem(msgspec.Struct, kw_only=True, frozen=True):
    """The server's own account: `errors` point into the request, `code` tells conflicts apart."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    errors: list[FieldError] = []
    code: str | None = None
    request_id: str | None = None


class ClientError(Exception):
    """Base of everything that the client raises."""


class Unreachable(ClientError):
    """No answer came. `sent` is False if the server cannot have seen the request."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent

    @property
    def in_doubt(self) -> bool:
        """Whether the request may have been carried out all the same."""
        return self.sent


class BadAnswer(ClientError):
    """Something answered, but not as the API does."""


class WaitTimeout(ClientError):
    """What was waited for has not come about in time; nothing was changed."""


class ApiError(ClientError):
    """The server refused. `retry_after` is in seconds, where it said so."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail or problem.title or f"HTTP status {problem.status}")
        self.problem = problem
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def kind(self) -> str:
        """The last part of the problem's type, such as `overloaded`."""
        return self.problem.type.rpartition(":")[2]

    @property
    def in_doubt(self) -> bool:
        """Whether the request may have been carried out all the same."""
        return self.status >= 500 and self.kind not in _NOTHING_TAKEN


class InvalidRequest(ApiError):
    """400, 413, 415 or 422: the request itself is wrong; sending it again will not help."""


class NotAuthenticated(ApiError):
    """401: the server wants to know who asks; the key is missing, wrong or expired."""


class Forbidden(ApiError):
    """403: whoever asks may not do that."""


class NotFound(ApiError):
    """404: no such object, or none that the caller may see."""


class Conflict(ApiError):
    """409: the object's present state refuses the change."""


class PreconditionFailed(ApiError):
    """412: the object has changed since it was read. 428: say which version is meant."""


class Overloaded(ApiError):
    """429 or 503: nothing wrong with the request, try again later."""


class PartlySubmitted(ClientError):
    """A batch failed after others were taken: `created` stand, in order; `error` says why the next `batch` do not.

    Where `error.in_doubt`, that batch may have been taken all the same. Pointers count from the start of the batch.
    """

    def __init__(self, created: list[Created], batch: int, error: ApiError | Unreachable) -> None:
        first, last = len(created), len(created) + batch - 1
        fate = "may or may not have been created" if error.in_doubt else "were not"
        super().__init__(f"tasks 0 to {first - 1} were created, {first} to {last} {fate}: {error}")
        self.created = created
        self.batch = batch
        self.error = error


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    428: PreconditionFailed,
    429: Overloaded,
    503: Overloaded,
}


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Make the error of a reply that is no success; a body that is no problem document is quoted as it is."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body[:200].decode("utf-8", "replace").strip()
        problem = Problem(detail=f"HTTP status {status}" + (f": {text}" if text else ""))
    problem = msgspec.structs.replace(problem, status=status)
    return _BY_STATUS.get(status, ApiError)(problem, _seconds(headers.get("retry-after")))


def _seconds(value: str | None) -> float | None:
    """Return Retry-After where it is a number of seconds (this API never sends a date)."""
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        return None
