"""Keyset pages as the stores return them, made of statements that walk an index backwards for a bounded stretch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

Item = TypeVar("Item")

WALK = 10_000
"""How many rows a page with a filter looks at before it answers with what it has found so far."""

LAST_ID = UUID(int=(1 << 128) - 1)
_AT_ONCE = 500  # rows may be large, of which only the id is kept


class Page(msgspec.Struct, Generic[Item]):
    """Some rows in order; the next page begins after `next_key`, which is None on the last one."""

    items: list[Item]
    next_key: Any


def page_of(rows: Sequence[Any], limit: int, walk: int, build: Callable[[Any], Item], *, key: str = "id") -> Page[Item]:
    """Make a page of a walking statement's rows, asked for one more than `limit`.

    Their `walked` and `floor` say how far it looked; `id` is NULL in a single row if it found nothing there.
    """
    found = [row for row in rows if row["id"] is not None]
    next_key: UUID | None = None
    if len(found) > limit:
        found = found[:limit]
        next_key = found[-1][key]
    elif rows[0]["walked"] >= walk:
        next_key = rows[0]["floor"]
    return Page([build(row) for row in found], next_key)


async def first_ids(page: Callable[[UUID | None, int], Awaitable[Page[Any]]], count: int) -> list[UUID]:
    """Return the ids of up to `count` rows, from as many pages as that takes; `page` is asked (after, limit)."""
    found: list[UUID] = []
    after: UUID | None = None
    while len(found) < count:
        part = await page(after, min(count - len(found), _AT_ONCE))
        found += [item.id for item in part.items]
        after = part.next_key
        if after is None:
            break
    return found
