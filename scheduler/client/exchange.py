"""The client without I/O: what is asked, what comes back, and what to do next.

An operation is a generator. It yields a `Request` and receives the `Reply`, yields a `Pause` and receives the monotonic
time after it, or yields a `Listen` and receives what was `Heard`; what it returns is the operation's result. Retries
wrap around any operation in the same way (`with_retries`). A transport has nothing left to decide: it sends requests,
feeds streams and sleeps (`sync.py`, `asynchronous.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TypeAlias, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec

from scheduler.client.errors import ApiError, BadAnswer, Unreachable, refusal
from scheduler.client.retry import RetryPolicy

T = TypeVar("T")

Id: TypeAlias = UUID | str
Query: TypeAlias = Mapping[str, str | int | bool | None]

_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. `target` is path and query; `timeout` in seconds (None: the client's own).

    `repeatable` says that sending it twice does no more than sending it once.
    """

    method: str
    target: str
    headers: dict[str, str] = {}
    body: bytes = b""
    repeatable: bool = False
    timeout: float | None = None


class Reply(msgspec.Struct, frozen=True):
    """A whole HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fault(msgspec.Struct, frozen=True):
    """No answer came. `sent` is False if the server cannot have seen the request."""

    sent: bool
    detail: str


class Pause(msgspec.Struct, frozen=True):
    """Wait for so many seconds."""

    seconds: float


class Listen(msgspec.Struct, frozen=True):
    """Open a stream and feed what comes until `feed` returns True, it ends, or about so many seconds have passed."""

    request: Request
    feed: Callable[[bytes], bool]
    seconds: float


class Heard(msgspec.Struct, frozen=True):
    """What became of a stream: the monotonic time now, and whether it was there at all."""

    now: float
    opened: bool


Operation: TypeAlias = Generator[Request | Pause | Listen, Reply | Heard | float, T]
Exchange: TypeAlias = Generator[Request | Pause | Listen, Reply | Fault | Heard | float, T]


def build(
    method: str,
    path: str,
    *,
    query: Query | None = None,
    body: bytes = b"",
    media: str = "application/json",
    version: int | None = None,
    repeatable: bool | None = None,
) -> Request:
    """Build a request: `version` becomes its If-Match; None in the query is left out.

    What is deleted goes whatever version it is at, which servers that demand a condition want to be told.
    `repeatable` by default is what the method says.
    """
    headers = {"content-type": media} if body else {}
    if version is not None:
        headers["if-match"] = f'"{version}"'
    elif method == "DELETE":
        headers["if-match"] = "*"
    pairs = [f"{quote(name)}={quote(_text(value))}" for name, value in (query or {}).items() if value is not None]
    return Request(
        method=method,
        target=f"{path}?{'&'.join(pairs)}" if pairs else path,
        headers=headers,
        body=body,
        repeatable=method in _REPEATABLE if repeatable is None else repeatable,
    )


def path_of(*parts: object) -> str:
    """Join the parts of a path, each quoted."""
    return "".join("/" + quote(str(part), safe="") for part in parts)


def ask(request: Request) -> Operation[Reply]:
    """Send one request. Raises ApiError for anything but a 2xx, Unreachable if no answer came."""
    answer = yield request
    assert isinstance(answer, Reply)
    return answer


def pause(seconds: float) -> Operation[float]:
    """Wait, then return the monotonic time in seconds."""
    now = yield Pause(seconds)
    assert isinstance(now, float)
    return now


def decoded(reply: Reply, type: type[T]) -> T:  # noqa: A002 - what msgspec calls it
    """Return the body of a reply. Raises BadAnswer if it is not what the wire contract says."""
    try:
        return msgspec.json.decode(reply.body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"the server's answer cannot be read: {error}") from error


def error_of(answer: Reply | Fault) -> ApiError | Unreachable:
    """Return the error that a failed request means to its caller."""
    if isinstance(answer, Reply):
        return refusal(answer.status, answer.headers, answer.body)
    return Unreachable(answer.detail, sent=answer.sent)


def with_retries(operation: Operation[T], policy: RetryPolicy, noise: Callable[[], float]) -> Exchange[T]:
    """Run an operation with every request retried as far as that is safe; what is final is raised inside it.

    `noise` returns a number from 0 to 1, for the jitter.
    """
    try:
        step = next(operation)
        while True:
            if not isinstance(step, Request):
                after = yield step
                assert isinstance(after, float | Heard)
                step = operation.send(after)
                continue
            answer = yield from _persist(step, policy, noise)
            step = operation.throw(answer) if isinstance(answer, Exception) else operation.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        operation.close()


def _persist(request: Request, policy: RetryPolicy, noise: Callable[[], float]) -> Exchange[Reply | Exception]:
    """Send until there is a final answer."""
    if policy.keyed and policy.attempts > 1 and request.method == "POST" and not request.repeatable:
        headers = {**request.headers, "idempotency-key": str(uuid4())}
        request = msgspec.structs.replace(request, headers=headers, repeatable=True)
    tries = 0
    doubt: ApiError | Unreachable | None = None
    while True:
        tries += 1
        answer = yield request
        assert isinstance(answer, Reply | Fault)
        if isinstance(answer, Reply):
            if 200 <= answer.status < 300:
                return answer
            if doubt is not None and request.method == "DELETE" and answer.status == 404:
                return answer  # an earlier try, whose answer was lost, has done it
            if doubt is not None and answer.status == 412:
                return doubt  # the change that the version has passed by may be an earlier try's
        error = error_of(answer)
        if error.in_doubt:
            doubt = error
        wait = policy.wait(error, tries=tries, repeatable=request.repeatable, noise=noise())
        if wait is None:
            return error
        yield Pause(wait)


def _text(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
