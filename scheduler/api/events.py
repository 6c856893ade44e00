"""`GET /api/events/stream`: what changes, as it changes, by server-sent events.

An event tells an object as it is now, under `run`, `task`, `worker` or `leader`. Its id is a place in time:
`Last-Event-ID` goes on from there, from PostgreSQL, for as long as ten minutes back. What was told before may be told
again, with the same `version`; where something may be missing, `gap` says so. A stream ends when the server stops: come
back.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final, get_args
from uuid import UUID

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from scheduler.api.context import Context
from scheduler.api.feed import SLACK, Client, Event, Wanted, change_event, gap_event, position_of
from scheduler.api.problems import malformed
from scheduler.api.requests import Request
from scheduler.api.routing import Query, Route
from scheduler.domain.access import Principal
from scheduler.domain.errors import FieldError, InvalidInput
from scheduler.store.changes import Changes
from scheduler.wire.events import Kind

_MEMORY: Final = 600.0  # seconds
_REPLAYED: Final = 10_000  # changes
_RETRY: Final = (500, 3000)  # ms: clients that were cut off together come back one by one

KINDS: Final = get_args(Kind)


class EventStream(Response):
    """One open stream; holds as little as it can while nothing happens."""

    def __init__(self, api: Context, principal: Principal, wanted: Wanted, last_seen: int | None) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        self._feed = api.feed
        self._changes = api.changes
        self._credentials = api.credentials
        self._principal = principal
        self._wanted = wanted
        self._last_seen = last_seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Answer one request: what was missed first, then what comes, which the feed sends, until it goes.

        It also ends when the credentials hold no longer that it was asked for with.
        """
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self.raw_headers = []  # there may be thousands of streams
        feed = self._feed
        await feed.join()
        client = Client(send, self._wanted, feed.head)
        follower = self._credentials.follow(self._principal, client.gone.cancel)
        try:
            await send({"type": "http.response.body", "body": await self._beginning(), "more_body": True})
            feed.add(client)
            with client.gone:
                while (await receive())["type"] != "http.disconnect":
                    pass
            if client.gone.cancel_called:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._credentials.unfollow(follower)
            feed.remove(client)
            feed.leave()

    async def _beginning(self) -> bytes:
        seen = self._last_seen
        begin = b"retry: %d\nid: %d\n\n" % (random.randint(*_RETRY), seen or self._feed.position)  # noqa: S311
        if seen is None or self._feed.closed:
            return begin
        return begin + self._wanted.text(await _replay(self._changes, seen))


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
    return EventStream(api, request.principal, wanted, last_seen)


def _last_seen(request: Request) -> int | None:
    given = request.headers.get(b"last-event-id")
    if not given:
        return None
    if not (given.isdigit() and len(given) <= 18):
        raise malformed("Last-Event-ID is none of this stream's")
    return int(given)


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


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/api/events/stream",
        permission="event:read",
        handler=stream_events,
        summary="Follow what changes",
        tag="events",
        query=(
            Query("kind", str, "Only these, separated by commas: run, task, worker, leader (default: all)."),
            Query("task_id", UUID, "Only runs of this task."),
        ),
        responses={200: ("text/event-stream",)},
        errors=(422,),
    ),
)
