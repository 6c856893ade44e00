"""The one reader behind every stream of events: looks at what has changed, and keeps the last of it for all clients.

PostgreSQL says what has changed, so a look that comes late misses no object that has; what it cannot see is a state
that an object passed through between two looks. A look begins a little before the last one, for what was committed
late, and leaves out what it has told. Redis only says when to look sooner. While nobody listens, nothing is read.

A run that goes back to waiting bears no time of it. So those that execute or stand queued are remembered, and asked for
when they do so no longer; of an ended one that somebody lets run again, Redis brings the id. Without Redis, that one is
told when it is queued again.

A client holds a number, how far it is; whoever falls behind further than the feed remembers has a gap. Memory is
bounded by what the feed remembers, and by what happened in the last seconds; an idle client has no task of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, Literal
from uuid import UUID

import anyio
import anyio.abc
import msgspec
from starlette.types import Send

from scheduler.domain.clock import Clock
from scheduler.health import Health
from scheduler.service import Wake, run_loop
from scheduler.store.changes import Changes
from scheduler.telemetry import get_logger
from scheduler.wire.events import Change, Gap

SLACK: Final = timedelta(seconds=2)
"""How long before a look a change may have been made that was not yet committed then."""

_REMEMBERED: Final = 8192  # events
_AT_ONCE: Final = 20_000  # changes that one look takes in
_RENDERED: Final = 64  # texts that several clients may lack
_WATCHED: Final = 20_000  # runs that stand queued
_ASKED: Final = 1000  # of them, by one look
_SPACING: Final = 0.2  # seconds between looks at least
_encode = msgspec.json.Encoder().encode
_log = get_logger("api.events")

Reason = Literal["too_old", "too_many", "too_slow"]
_Seen = dict[tuple[str, UUID | None], tuple[int | None, str, datetime | None]]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event, ready to be sent. `namespace` None is for everybody; `kind` None is for every listener."""

    kind: str | None
    namespace: str | None
    task_id: UUID | None
    text: bytes


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Which events a client sees."""

    namespace: str
    kinds: frozenset[str]
    task_id: UUID | None

    def text(self, events: Iterable[Event]) -> bytes:
        """Return those of the events that are for this client."""
        return b"".join(event.text for event in events if event.kind is None or self._sees(event))

    def _sees(self, event: Event) -> bool:
        return (
            (event.namespace is None or event.namespace == self.namespace)
            and event.kind in self.kinds
            and (self.task_id is None or event.task_id == self.task_id)
        )


class Client:
    """One open stream: `number` is the first event that it lacks, `gone` ends it. Small, for there may be thousands."""

    __slots__ = ("gone", "number", "send", "sending", "wanted")

    def __init__(self, send: Send, wanted: Wanted, number: int) -> None:
        self.send = send
        self.wanted = wanted
        self.number = number
        self.sending = False
        self.gone = anyio.CancelScope()


def change_event(change: Change, position: int) -> Event:
    """Return the event of one change, seen by a look at `position`."""
    text = b"id: %d\nevent: %s\ndata: %s\n\n" % (position, change.kind.encode(), _encode(change))
    return Event(change.kind, change.namespace, change.task_id, text)


def gap_event(reason: Reason, position: int) -> Event:
    """Return the event that says that changes may be missing before `position`."""
    return Event(None, None, None, b"id: %d\nevent: gap\ndata: %s\n\n" % (position, _encode(Gap(reason=reason))))


def position_of(moment: datetime) -> int:
    """Return a place in the stream, which is what an event's id is: microseconds of PostgreSQL's clock."""
    return round(moment.timestamp() * 1e6)


class Feed:
    """Looks while there are followers; `step` is run by a loop over `wake`."""

    def __init__(self, changes: Changes, clock: Clock, *, poll: float, keepalive: float) -> None:
        self.wake = Wake()
        self.head = 0
        """The number of the next event."""
        self.position = 0
        self.closed = False
        self._changes = changes
        self._monotonic = clock.monotonic
        self._poll = poll
        self._keepalive = keepalive
        self._beat_at = 0.0
        self._followers = 0
        self._events: deque[Event] = deque(maxlen=_REMEMBERED)
        self._begun = anyio.Event()
        self._clients: set[Client] = set()
        self._rendered: dict[tuple[Wanted, int], bytes] = {}
        self._group: anyio.abc.TaskGroup | None = None
        self._since: datetime | None = None
        self._not_before = 0.0
        self._executing: set[UUID] = set()
        self._queued: dict[UUID, None] = {}  # in the order in which they are to be asked for
        self._revived: dict[UUID, None] = {}
        self._seen: _Seen = {}
        self._seen_before: _Seen = {}
        self._turned = datetime.min.replace(tzinfo=UTC)

    # --- for clients

    async def join(self) -> None:
        """Begin to follow: returns once `position` is a place from which on nothing will be missed."""
        self._followers += 1
        if self._since is None:
            self.wake.set()
            while self._since is None and not self.closed:
                await self._begun.wait()

    def leave(self) -> None:
        """Follow no more."""
        self._followers -= 1

    def add(self, client: Client) -> None:
        """Send a client what comes after its number, until `remove`."""
        if self.closed:
            client.gone.cancel()
        self._clients.add(client)
        self._deliver_to(client)

    def remove(self, client: Client) -> None:
        """Send a client nothing more."""
        self._clients.discard(client)

    def revived(self, ids: bytes) -> None:
        """Ask for runs that had ended and wait again, if somebody listens."""
        if self._followers and len(self._revived) <= _AT_ONCE:  # more are a gap
            self._revived |= {UUID(bytes=ids[at : at + 16]): None for at in range(0, len(ids) - 15, 16)}
            self.wake.set()

    def close(self) -> None:
        """Send every follower home."""
        self.closed = True
        self._announce()
        for client in self._clients:
            client.gone.cancel()

    async def run(self, health: Health) -> None:
        """Look and tell until cancelled."""
        async with anyio.create_task_group() as self._group:
            await run_loop("api.events", self.step, wake=self.wake, health=health)

    def _deliver_to(self, client: Client) -> None:
        """Have a client be sent what it lacks. A task lives only as long as there is something to send."""
        if client.sending or not self._lacks(client) or self._group is None or self.closed:
            return
        client.sending = True
        self._group.start_soon(self._deliver, client, name="events: deliver")

    def _lacks(self, client: Client) -> bool:
        # Who has gone lacks nothing: the end of the answer is sent, or waits behind what is being sent.
        return client.number != self.head and not client.gone.cancel_called

    async def _deliver(self, client: Client) -> None:
        try:
            while self._lacks(client):
                events = self._text(client)
                client.number = self.head
                if events:
                    await client.send({"type": "http.response.body", "body": events, "more_body": True})
        except OSError:
            client.gone.cancel()
        except Exception as error:  # noqa: BLE001 - whatever one client's connection does, the others are served
            _log.error("a stream of events failed", exc_info=error)
            client.gone.cancel()
        finally:
            client.sending = False

    def _text(self, client: Client) -> bytes:
        """Return the events that a client lacks, or the gap; most clients lack the same."""
        key = (client.wanted, client.number)
        text = self._rendered.get(key)
        if text is None:
            missing = self.head - client.number
            if missing > len(self._events):
                text = gap_event("too_slow", self.position).text
            else:
                events = (self._events[index] for index in range(len(self._events) - missing, len(self._events)))
                text = client.wanted.text(events)
            if len(self._rendered) < _RENDERED:
                self._rendered[key] = text
        return text

    # --- looking

    async def step(self) -> float | None:
        """Look once. Raises StoreUnavailable, after which the next look makes up for it."""
        if not self._followers:
            self._since = None
            self._forget()
            return None
        now = self._monotonic()
        if now < self._not_before:
            return self._not_before - now
        self._not_before = now + _SPACING
        if now - self._beat_at > self._keepalive:
            self._tell([Event(None, None, None, b": still here\n\n")])
        await self._look()
        return self._poll

    async def _look(self) -> None:
        moment = await self._changes.now()
        first = self._since is None
        before = self._since or moment
        since = before - SLACK
        runs = await self._changes.runs(since, _AT_ONCE + 1)
        tasks = await self._changes.tasks(since, _AT_ONCE + 1)
        fleet = await self._changes.fleet(since)
        if first:
            self._queued = dict.fromkeys(await self._changes.queued(_WATCHED))
        too_many = max(len(runs), len(tasks), len(self._revived)) > _AT_ONCE
        executing = {_id(change) for change in runs if change.state == "running"}
        if too_many:
            self._revived.clear()
            self._note_queued(runs)
        elif again := await self._waiting_again(runs, executing):
            runs = list({_id(change): change for change in (*runs, *again)}.values())  # of each, what was read last
        self._executing = executing
        news = self._unseen([*fleet, *tasks, *sorted(runs, key=_when)], now=moment)
        self._since, self.position = moment, position_of(moment)
        if first:
            self._announce()
        elif too_many:
            self._tell([gap_event("too_many", self.position)])
        elif news:
            # Whoever is cut off in the middle of these has to get all of them again.
            told = [change_event(change, position_of(before)) for change in news]
            self._tell([*told, Event(None, None, None, b"id: %d\n\n" % self.position)])

    async def _waiting_again(self, found: Sequence[Change], executing: set[UUID]) -> list[Change]:
        """Return what may wait again: revived runs, and those that executed or stood queued and do so no longer."""
        revived, self._revived = self._revived, {}
        try:
            asked = self._executing.union(revived) - executing
            again = await self._changes.these_runs(asked) if asked else []
            fresh = self._note_queued([*found, *again])
            # Of very many, this look asks for some and the next for others.
            stale = list(islice(self._queued, min(_ASKED, max(0, len(self._queued) - fresh))))
            left = await self._changes.queued_no_longer(stale) if stale else []
        except Exception:
            self._revived = revived | self._revived
            raise
        for run_id in stale:
            self._queued[run_id] = self._queued.pop(run_id)
        for change in left:
            del self._queued[_id(change)]
        return again + left

    def _note_queued(self, runs: Iterable[Change]) -> int:
        """Remember those of the runs that stand queued, behind those that did so before; return how many do."""
        fresh = set()
        for change in runs:
            self._queued.pop(_id(change), None)
            if change.state == "queued":
                self._queued[_id(change)] = None
                fresh.add(change.id)
        for run_id in list(islice(self._queued, max(0, len(self._queued) - _WATCHED))):
            del self._queued[run_id]
        return len(fresh)

    def _tell(self, events: Sequence[Event]) -> None:
        self.head += len(events)
        self._events.extend(events)
        self._beat_at = self._monotonic()
        self._announce()

    def _unseen(self, changes: Iterable[Change], now: datetime) -> list[Change]:
        """Leave out what was told; remember it for as long as looks can find it again."""
        if now - self._turned > 2 * SLACK:
            kept = {key: value for key, value in self._seen.items() if key[0] in ("worker", "leader")}
            self._seen_before, self._seen, self._turned = self._seen, kept, now
        news = []
        for change in changes:
            key = (change.kind, change.id if change.kind != "leader" else None)
            told = (change.version, change.state, change.at)
            if told != self._seen.get(key, self._seen_before.get(key)):
                news.append(change)
            self._seen[key] = told
        return news

    def _forget(self) -> None:
        self._executing, self._seen, self._seen_before = set(), {}, {}
        self._queued, self._revived = {}, {}

    def _announce(self) -> None:
        self._begun.set()
        self._begun = anyio.Event()
        self._rendered.clear()
        for client in self._clients:
            self._deliver_to(client)


def _id(change: Change) -> UUID:
    assert change.id is not None, "only of a leader's place may there be nobody"
    return change.id


def _when(change: Change) -> datetime:
    assert change.at is not None, "every run was created"
    return change.at
