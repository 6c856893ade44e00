"""`GET /api/events/stream`: what changes, as it changes, by server-sent events.

An event tells an object as it is now, under `run`, `task`, `worker` or `leader`. Its id is a place in time:
`Last-Event-ID` goes on from there, from PostgreSQL, for as long as ten minutes back. What was told before may be told
again, with the same `version`; where something may be missing, `gap` says so. A stream ends when the server stops: come
back.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Final, get_args
from uuid import UUID

import anyio
import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from scheduler.api.context import Context
from scheduler.api.feed import SLACK, Event, Feed, change_event, gap_event, position_of
from scheduler.api.problems import malformed
from scheduler.api.requests import Request
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.store.changes import Changes
from scheduler.wire.events import Kind

_MEMORY: Final = 600.0  # seconds
_REPLAYED: Final = 10_000  # changes
_RETRY: Final = (500, 3000)  # ms: clients that were cut off together come back one by one

KINDS: Final = get_args(Kind)


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Which events a client sees."""

    namespace: str
    kinds: frozenset[str]
    task_id: UUID | None

    def sees(self, event: Event) -> bool:
        """Say whether one event is for this client."""
        if event.kind is None:
            return True
        return (
            (event.namespace is None or event.namespace == self.namespace)
            and event.kind in self.kinds
            and (self.task_id is None or event.task_id == self.task_id)
        )


class EventStream(Response):
    """Sends what a generator yields until it ends or the client goes; holds as little as it can meanwhile."""

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        self.status_code = 200
        self.background = None
        self._events = events
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Answer one request."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(watch, name="events: client")
            async for text in self._events:
                await send({"type": "http.response.body", "body": text, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            group.cancel_scope.cancel()


async def stream_events(api: Context, request: Request) -> Response:
    """Tell what changes from now on, or from `Last-Event-ID` on."""
    request.allow_query("kind", "task_id")
    kinds = request.query.get("kind", ",".join(KINDS)).split(",")
    if wrong := [kind for kind in kinds if kind not in KINDS]:
        detail = f"{wrong[0][:50]!r} is none of {', '.join(KINDS)}"
        raise InvalidInput([FieldError("?kind", detail)])
    wanted = Wanted(request.namespace, frozenset(kinds), request.query_uuid("task_id"))
    last_seen = _last_seen(request)
    await api.changes.now()  # while the database is away there is nothing to tell: say so now
    return EventStream(_follow(api.feed, api.changes, wanted, last_seen))


def _last_seen(request: Request) -> int | None:
    given = request.headers.get(b"last-event-id")
    if not given:
        return None
    if not (given.isdigit() and len(given) <= 18):
        raise malformed("Last-Event-ID is none of this stream's")
    return int(given)


async def _follow(feed: Feed, changes: Changes, wanted: Wanted, last_seen: int | None) -> AsyncIterator[bytes]:
    await feed.join()
    try:
        head = feed.head
        yield b"retry: %d\nid: %d\n\n" % (random.randint(*_RETRY), last_seen or feed.position)  # noqa: S311
        if last_seen is not None and not feed.closed:
            yield _text(wanted, await _replay(changes, last_seen))
        while not feed.closed:
            events, head = feed.after(head), feed.head
            if events is None:
                yield gap_event("too_slow", feed.position).text
            elif text := _text(wanted, events):
                yield text
            if head == feed.head:
                await feed.news()
    finally:
        feed.leave()


def _text(wanted: Wanted, events: Iterable[Event]) -> bytes:
    return b"".join(event.text for event in events if wanted.sees(event))


async def _replay(changes: Changes, last_seen: int) -> list[Event]:
    """Return what has changed since a place in the stream, the oldest first, so that each id is a place to go on from.

    A run that went back to waiting meanwhile cannot be found so: it is told when it is queued again.
    """
    now = await changes.now()
    behind = now.timestamp() - last_seen / 1e6
    if not -1 <= behind <= _MEMORY:
        return [gap_event("too_old", position_of(now))]
    since = now - timedelta(seconds=behind) - SLACK
    found = [*await changes.tasks(since, _REPLAYED + 1), *await changes.runs(since, _REPLAYED + 1)]
    if len(found) > _REPLAYED:
        return [gap_event("too_many", position_of(now))]
    found += await changes.fleet(since)
    dated = [(change.at, change) for change in found if change.at and change.at >= since]
    dated.sort(key=lambda pair: pair[0])
    return [change_event(change, max(last_seen, position_of(at))) for at, change in dated]
