"""Answers: starlette responses whose headers are ready-made bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from starlette.responses import Response

Header = tuple[bytes, bytes]

_JSON = b"application/json"
_encode = msgspec.json.Encoder().encode


class Reply(Response):
    """A whole answer in memory; skips the work that `Response.__init__` does for each one."""

    def __init__(
        self, body: bytes = b"", status: int = 200, media: bytes | None = _JSON, headers: Iterable[Header] = ()
    ) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), *headers]
        if media is not None:
            self.raw_headers.append((b"content-type", media))


def answer(value: Any, status: int = 200, headers: Iterable[Header] = ()) -> Reply:
    """Answer with `value` as JSON."""
    return Reply(_encode(value), status, _JSON, headers)


def nothing(headers: Iterable[Header] = ()) -> Reply:
    """Answer 204."""
    reply = Reply(b"", 204, None, headers)
    del reply.raw_headers[0]  # a 204 has no content length
    return reply


def etag(version: int) -> Header:
    """Return the ETag header of a stored version."""
    return b"etag", b'"%d"' % version


def location(collection: str, identifier: UUID | str) -> Header:
    """Return the Location header of a new object, which is addressed by its id or its name."""
    step = quote(identifier, safe="") if isinstance(identifier, str) else identifier
    return b"location", f"{collection}/{step}".encode()
