"""Keyset pages without I/O: a listing knows the request of its next page, and when there is none."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from scheduler.client.exchange import Operation, Query, ask, build, decoded

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page. It may hold fewer items than asked for and still have a next one."""

    items: list[T]
    next_cursor: str | None = None


class Listing(Generic[T]):
    """All objects that match a query, fetched page by page; iterate it through a client."""

    def __init__(self, path: str, item: type[T], query: Query) -> None:
        self._path = path
        self._item = item
        self._query = dict(query)
        self._cursor: str | None = None
        self.finished = False

    def next_page(self) -> Operation[list[T]]:
        """Fetch the next page's items and remember where it ended; `finished` is set with the last one."""
        request = build("GET", self._path, query={**self._query, "cursor": self._cursor})
        page = decoded((yield from ask(request)), Page[self._item])  # type: ignore[name-defined]  # known at run time only
        self._cursor = page.next_cursor
        self.finished = page.next_cursor is None
        return page.items
