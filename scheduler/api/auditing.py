"""The audit log as requests see it: what changes something and what says so are committed together, or neither is."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.responses import Response

from scheduler.api.context import Context
from scheduler.api.requests import Request
from scheduler.api.responses import Reply
from scheduler.api.routing import Route
from scheduler.store.audit import Entry, write_audit

_LONGEST_OBJECT = 255


async def handle_logged(api: Context, route: Route, request: Request) -> Response:
    """Run a handler and log its change, in one transaction. Raises what the handler raises: then nothing is left.

    The body is read before the transaction begins, so that no slow client keeps one open. Whether there is one is known
    when it has ended: over HTTP/2 no header says so.
    """
    settings = api.settings
    await request.body(settings.max_checkpoint if route.request is bytes else settings.max_body, settings.body_timeout)
    request.noted = None  # of an attempt whose transaction was taken back
    async with api.database.pinned() as pinned:
        inner = api.within(pinned)
        reply = await route.handler(inner, request)
        await write_audit(pinned, [entry_of(route, request, reply)])
    inner.offers.release()
    return reply


def entry_of(route: Route, request: Request, reply: Response) -> Entry:
    """Return what is logged of a change: what the answer tells, and what the handler has noted."""
    noted = request.noted or {}
    return Entry(
        namespace=request.namespace,
        actor=request.actor,
        action=route.operation,
        object=noted.get("object", _object_of(request, reply)),
        request_id=request.request_id,
        status=reply.status_code,
        version_before=noted.get("version_before"),
        version_after=noted.get("version_after", _version_of(reply)),
        count=noted.get("count", 1),
        address=request.address,
    )


def _object_of(request: Request, reply: Response) -> str | None:
    """Return the last step of where a new object is, else what the path names."""
    if (location := _header(reply, b"location")) is not None:
        return unquote(location.rpartition("/")[2])[:_LONGEST_OBJECT]
    named = request.params.get("id") or request.params.get("name")
    return None if named is None else named[:_LONGEST_OBJECT]


def _version_of(reply: Response) -> int | None:
    tag = _header(reply, b"etag")
    return int(tag.strip('"')) if tag is not None else None


def _header(reply: Response, name: bytes) -> str | None:
    assert isinstance(reply, Reply), "a change is answered in one piece"
    return next((value.decode("latin-1") for key, value in reply.raw_headers if key == name), None)
