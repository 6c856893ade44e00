"""Keyset pages: `limit` and an opaque `cursor` in, `items`, `next_cursor` and `Link: rel="next"` out.

A cursor is where the last page ended, so a page costs the same however deep it lies, and rows that come or go
meanwhile neither repeat nor hide others. A page may hold fewer items than asked for and still have a next one: looking
for rare rows stops after a bounded number of rows.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from scheduler.api.problems import malformed
from scheduler.api.requests import Request
from scheduler.api.responses import Reply, answer
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.store.pages import Page

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

K = TypeVar("K")
T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


def encode_cursor(key: Any) -> str:
    """Return a cursor for any msgspec value."""
    return base64.urlsafe_b64encode(_encode(key)).rstrip(b"=").decode()


def decode_cursor(text: str, type: type[K]) -> K:  # noqa: A002 - what msgspec calls it
    """Return what a cursor of ours holds. Raises a 400 Refusal for any other text, also if it can be read."""
    try:
        key = msgspec.msgpack.decode(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True), type=type)
        is_ours = encode_cursor(key) == text
    except (binascii.Error, msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        is_ours = False
    if not is_ours:
        raise malformed("unknown cursor", FieldError("?cursor", "is no cursor of this listing"))
    return key


def limit_of(request: Request, default: int = DEFAULT_LIMIT) -> int:
    """Return how many items the caller wants. Raises InvalidInput unless 1 ≤ limit ≤ 1000."""
    limit = request.convert("limit", int)
    if limit is None:
        return default
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInput([FieldError("?limit", f"must be from 1 to {MAX_LIMIT}")])
    return limit


def cursor_of(request: Request, type: type[K]) -> K | None:  # noqa: A002 - what msgspec calls it
    """Return where the page begins, None for the first one. Raises a 400 Refusal."""
    text = request.query.get("cursor")
    return decode_cursor(text, type) if text else None


def page_answer(request: Request, page: Page[Any], render: Callable[[Any], Any] = lambda item: item) -> Reply:
    """Answer with one page, linked to the next."""
    cursor = encode_cursor(page.next_key) if page.next_key is not None else None
    headers = []
    if cursor is not None:
        query = urlencode({**request.query, "cursor": cursor}).encode()
        headers.append((b"link", b'<%s?%s>; rel="next"' % (request.path, query)))
    return answer({"items": [render(item) for item in page.items], "next_cursor": cursor}, headers=headers)


def whole_answer(request: Request, items: Iterable[T], key: Callable[[T], Any], type: type[K]) -> Reply:  # noqa: A002
    """Answer with one page of a list that is short enough to be read whole; `key` orders it, and is of `type`."""
    after, limit = cursor_of(request, type), limit_of(request, MAX_LIMIT)
    rest = sorted((item for item in items if after is None or key(item) > after), key=key)
    return page_answer(request, Page(rest[:limit], key(rest[limit - 1]) if len(rest) > limit else None))
